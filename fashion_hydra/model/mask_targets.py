"""The truth's masks as mmdet's mask heads ask for them, without a full-size bitmap."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from fashion_hydra.structures.batch import CropMasks

_MARGIN = 2  # RoIAlign reads up to one pixel beyond its box


class GroundTruthMasks:
    """Masks of one image with the part of mmdet's `BitmapMasks` that training uses."""

    def __init__(self, masks: CropMasks) -> None:
        self._masks = masks
        self.height, self.width = masks.size

    def __len__(self) -> int:
        return len(self._masks)

    def crop_and_resize(
        self,
        bboxes: np.ndarray,
        out_shape: tuple[int, int],
        inds: np.ndarray,
        binarize: bool = True,
        **_: Any,
    ) -> "_Resized":
        """What mmdet's `BitmapMasks.crop_and_resize` gives: masks of `inds` seen through `bboxes`.

        Args:
            bboxes: float32 (K, 4), inside the frame.
            out_shape: height and width of the targets.
            inds: int64 (K,), which mask each box looks at.
            binarize: threshold at one half, else leave the covered share.
        """
        targets = torch.zeros((len(bboxes), *out_shape))
        boxes = torch.from_numpy(bboxes)
        crops, windows = self._masks.crops(), self._masks.windows.tolist()
        for mask in np.unique(inds):
            chosen = np.flatnonzero(inds == mask)
            x0, y0, x1, y1 = windows[mask]
            # A margin of zeros where the frame goes on; at its border RoIAlign must see the border.
            left, top = min(_MARGIN, x0), min(_MARGIN, y0)
            right, bottom = min(_MARGIN, self.width - x1), min(_MARGIN, self.height - y1)
            crop = F.pad(crops[mask].float(), (left, right, top, bottom))
            shift = torch.tensor([x0 - left, y0 - top] * 2)
            rois = [boxes[chosen] - shift]
            targets[chosen] = roi_align(crop[None, None], rois, out_shape, sampling_ratio=-1, aligned=True)[:, 0]
        return _Resized((targets >= 0.5).numpy() if binarize else targets.numpy())


class _Resized:
    """Holds targets as mmdet expects to find them."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def to_ndarray(self) -> np.ndarray:
        return self._values
