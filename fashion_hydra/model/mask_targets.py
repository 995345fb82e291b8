"""Ground-truth masks with the interface of mmdet's mask heads, but without full-size bitmaps."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from fashion_hydra.structures.batch import CropMasks

_MARGIN = 2  # RoIAlign reads up to one pixel beyond its box


class GroundTruthMasks:
    """Masks of one image, with the part of the interface of mmdet's `BitmapMasks` that training uses."""

    def __init__(self, masks: CropMasks) -> None:
        self._masks = masks
        self.height, self.width = masks.size
        # Pad windows with zeros inside the frame, but not beyond, where RoIAlign must see the frame's border.
        x0, y0, x1, y1 = masks.windows.unbind(1)
        left, top = x0.clamp(max=_MARGIN), y0.clamp(max=_MARGIN)
        right, bottom = (self.width - x1).clamp(max=_MARGIN), (self.height - y1).clamp(max=_MARGIN)
        self._margins = torch.stack([left, right, top, bottom], 1).tolist()
        self._origins = torch.stack([x0 - left, y0 - top], 1).numpy()
        self._padded: tuple[torch.device, list[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self._masks)

    @property
    def areas(self) -> Tensor:
        """Number of pixels of each mask, int64 (N,)."""
        return torch.tensor([int(crop.sum()) for crop in self._masks.crops()], dtype=torch.int64)

    def _padded_on(self, device: torch.device) -> list[Tensor]:
        """Return the masks' padded windows as uint8 (1, 1, h, w) on `device`; the transfer is done once."""
        if self._padded is None or self._padded[0] != device:
            pixels = self._masks.pixels.to(device, non_blocking=True)
            crops = CropMasks(pixels, self._masks.windows, self._masks.size).crops()
            self._padded = device, [F.pad(c[None, None], m) for c, m in zip(crops, self._margins, strict=True)]
        return self._padded[1]

    def values_at(self, points: Tensor, inds: Tensor) -> Tensor:
        """Interpolate masks at points.

        Args:
            points: (K, P, 2), x and y in pixels; the centre of the first pixel is at (0.5, 0.5).
            inds: int64 (K,), index of the mask of each row of points.

        Returns:
            float32 (K, P).
        """
        values = points.new_zeros(points.shape[:2], dtype=torch.float32)
        padded = self._padded_on(points.device)
        origins = torch.from_numpy(self._origins).to(points)
        for mask in inds.unique().tolist():
            rows = inds == mask
            height, width = padded[mask].shape[-2:]
            grid = 2 * (points[rows] - origins[mask]) / points.new_tensor([width, height]) - 1
            values[rows] = F.grid_sample(padded[mask].float(), grid[None].float(), align_corners=False)[0, 0]
        return values

    def crop_and_resize(
        self,
        bboxes: np.ndarray,
        out_shape: tuple[int, int],
        inds: np.ndarray,
        device: torch.device | str = "cpu",
        binarize: bool = True,
        **_: Any,
    ) -> "_Resized":
        """Crop masks to boxes and resize them, as mmdet's `BitmapMasks.crop_and_resize` does.

        Args:
            bboxes: float32 (K, 4), inside the frame.
            out_shape: height and width of the targets.
            inds: int64 (K,), index of each box's mask.
            device: device for the computation.
            binarize: threshold the targets at 0.5; False: return the covered share of each cell.
        """
        targets = np.zeros((len(bboxes), *out_shape), dtype=bool if binarize else np.float32)
        if not len(bboxes):
            return _Resized(targets)
        where = torch.device(device)
        order = np.argsort(inds, kind="stable")
        masks, counts = np.unique(inds, return_counts=True)
        boxes = (bboxes - np.tile(self._origins[inds], 2)).astype(np.float32)[order]
        padded, rois = self._padded_on(where), torch.from_numpy(boxes).to(where).split(counts.tolist())
        shares = torch.cat(
            [
                roi_align(padded[mask].float(), [of_mask], out_shape, sampling_ratio=-1, aligned=True)[:, 0]
                for mask, of_mask in zip(masks.tolist(), rois, strict=True)
            ]
        )
        targets[order] = (shares >= 0.5 if binarize else shares).cpu().numpy()
        return _Resized(targets)


class _Resized:
    """Targets with the method that mmdet calls on the result."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def to_ndarray(self) -> np.ndarray:
        return self._values
