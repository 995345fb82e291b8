"""Images -> candidates: proposals, boxes, masks of a cascade detector."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from fashion_hydra.postprocess import Postprocess, select
from fashion_hydra.structures import Batch, Candidates, Size


class CascadeDetector(Protocol):
    """The steps that inference needs of a model; see `fashion_hydra.model.detector.Detector`."""

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """The pyramid of padded uint8 images (B, 3, H, W)."""
        ...

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) and scores (N,) of each image."""
        ...

    def refine(
        self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) and class probabilities (N, C + 1) of each image."""
        ...

    def segment(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Tensor]:
        """Mask probabilities (N, M, M) of each image."""
        ...


@torch.no_grad()
def find_candidates(detector: CascadeDetector, batch: Batch, rules: Sequence[Postprocess]) -> list[Candidates]:
    """Everything that any of the rules may keep, for each image of a batch, on the CPU.

    A candidate's mask is only computed when its box survives the NMS of a rule, so a rule outside `rules` that
    is not stricter than one of them must not be applied to the result.

    Args:
        detector: in evaluation mode.
        batch: images.
        rules: at least one.
    """
    features = detector.features(batch.images, batch.sizes)
    proposals = [boxes for boxes, _ in detector.propose(features, batch.sizes)]
    refined = detector.refine(features, proposals, batch.sizes)
    frames = zip(batch.sizes, batch.original_sizes, strict=True)
    chosen = [
        _survivors(boxes, _stretch(boxes, size, original), probabilities, rules)
        for (boxes, probabilities), (size, original) in zip(refined, frames, strict=True)
    ]
    boxes, originals, scores, labels = ([image[part] for image in chosen] for part in range(4))
    if sum(map(len, labels)):
        masks = detector.segment(features, boxes, labels)
    else:
        masks = [torch.zeros((0, 1, 1)) for _ in labels]
    return [
        Candidates(image_id, size, b.cpu(), s.cpu(), c.cpu(), m.cpu())
        for image_id, size, b, s, c, m in zip(
            batch.image_ids, batch.original_sizes, originals, scores, labels, masks, strict=True
        )
    ]


def _survivors(
    boxes: Tensor, originals: Tensor, probabilities: Tensor, rules: Sequence[Postprocess]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The (box, class) pairs that some rule keeps, by descending score.

    Args:
        boxes: (N, 4) in the frame of the features' image.
        originals: the same in the frame of the file, where NMS is done, as postprocessing does it again.
        probabilities: (N, C + 1), background last.
        rules: at least one.

    Returns:
        Boxes, boxes in the file's frame, scores, labels.
    """
    floor = min(rule.score_thr for rule in rules)
    owners, labels = torch.nonzero(probabilities[:, :-1] > floor).unbind(1)
    scores = probabilities[owners, labels]
    order = scores.sort(descending=True, stable=True).indices
    owners, labels, scores = owners[order], labels[order], scores[order]
    boxes, originals = boxes[owners].float(), originals[owners].float()
    kept = [
        select(
            originals,
            scores,
            labels,
            score_thr=rule.score_thr,
            iou_thr=rule.iou_thr,
            max_per_image=rule.max_per_image,
        )
        for rule in rules
    ]
    index = torch.cat(kept).unique()
    return boxes[index], originals[index], scores[index], labels[index]


def _stretch(boxes: Tensor, size: Size, original: Size) -> Tensor:
    """Boxes from the resized image to the original one."""
    scale = boxes.new_tensor([original[1] / size[1], original[0] / size[0]] * 2)
    return boxes * scale
