"""Images -> candidates: any number of cascade detectors on any number of views of an image, merged.

A source is one detector on one view (a scale, mirrored or not). The scheme is that of the first-place solution of
iMaterialist (Fashion) 2019: all sources' proposals are merged by NMS; the merged ones go through every source's box
stages, and boxes and the probabilities of classes and attributes are averaged; what survives NMS goes through every
source's mask stages, and mask probabilities are averaged. One detector on one view is the plain case, without anything
to merge. Each source's features are computed once and serve all three steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fashion_hydra.inference.merging import Merging
from fashion_hydra.postprocess.apply import survivors
from fashion_hydra.postprocess.nms import top_survivors
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.structures.batch import PAD_DIVISOR, Batch, ScaledImage, Size
from fashion_hydra.structures.detections import Candidates, Refined, Segmented


class CascadeDetector(Protocol):
    """The steps that inference needs of a model; see `fashion_hydra.model.detector.Detector`."""

    @property
    def scores_masks(self) -> bool:
        """Whether `segment` predicts the IoU of masks."""
        ...

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """The pyramid of padded uint8 images (B, 3, H, W)."""
        ...

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Boxes (N, 4) and scores (N,) of each image."""
        ...

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Boxes, class probabilities and attributes of each image."""
        ...

    def segment(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Segmented]:
        """Masks, and their expected IoUs, of each image."""
        ...


@torch.no_grad()
def find_candidates(detector: CascadeDetector, batch: Batch, rules: Sequence[Postprocess]) -> list[Candidates]:
    """Everything that any of the rules may keep, for each image of a batch, on the CPU: one detector, one view.

    Args:
        detector: in evaluation mode.
        batch: images.
        rules: see `merge_sources`.
    """
    frames = zip(batch.sizes, batch.original_sizes, batch.image_ids, strict=True)
    return [
        _merge(
            [_Pass(detector, batch.images[i : i + 1], size, original, (False,), "device")],
            image_id,
            rules,
            Merging(),
        )
        for i, (size, original, image_id) in enumerate(frames)
    ]


@torch.no_grad()
def merge_sources(
    detectors: Sequence[CascadeDetector],
    scaled: ScaledImage,
    rules: Sequence[Postprocess],
    merging: Merging,
    *,
    device: torch.device,
) -> Candidates:
    """Everything that any of the rules may keep of one image, on the CPU.

    A candidate's mask is only computed when its box survives the NMS of a rule, so a rule outside `rules` that
    is not stricter than one of them must not be applied to the result.

    Args:
        detectors: in evaluation mode, with the same classes.
        scaled: the image at every scale.
        rules: at least one.
        merging: the mirrorings and how all is merged.
        device: where the detectors are.
    """
    passes = [
        _Pass(
            detector,
            _padded(image.to(device), flips),
            (image.shape[1], image.shape[2]),
            scaled.size,
            flips,
            merging.feature_cache,
        )
        for detector in detectors
        for image in scaled.images
        for flips in merging.batches()
    ]
    return _merge(passes, scaled.image_id, rules, merging)


class _Pass:
    """One detector on one scale of an image, some mirrorings as one batch."""

    def __init__(
        self,
        detector: CascadeDetector,
        images: Tensor,
        size: Size,
        original: Size,
        flips: tuple[bool, ...],
        feature_cache: str,
    ) -> None:
        self.detector, self.images, self.size, self.original, self.flips = detector, images, size, original, flips
        self.sizes = [size] * len(flips)
        self._feature_cache = feature_cache
        self._features: tuple[Tensor, ...] | None = None
        self._scale = images.new_tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float32)

    def features(self) -> tuple[Tensor, ...]:
        """The pyramid on the images' device, computed once unless it is not to be kept."""
        if self._features is not None:
            return tuple(level.to(self.images.device, non_blocking=True) for level in self._features)
        made = self.detector.features(self.images, self.sizes)
        if self._feature_cache == "host":
            self._features = tuple(level.cpu() for level in made)
        elif self._feature_cache == "device":
            self._features = made
        return made

    def to_original(self, boxes: Tensor, flip: bool) -> Tensor:
        """Boxes (N, 4) of a view in the frame of the file."""
        return self._mirrored(boxes.float(), flip) * self._scale

    def to_view(self, boxes: Tensor, flip: bool) -> Tensor:
        """Boxes (N, 4) in the frame of the file in a view's."""
        return self._mirrored(boxes / self._scale, flip)

    def _mirrored(self, boxes: Tensor, flip: bool) -> Tensor:
        if not flip:
            return boxes
        x0, y0, x1, y1 = boxes.unbind(1)
        return torch.stack([self.size[1] - x1, y0, self.size[1] - x0, y1], dim=1)


def _merge(passes: Sequence[_Pass], image_id: str, rules: Sequence[Postprocess], merging: Merging) -> Candidates:
    place, proposed = _proposals(passes, merging)
    views: list[Tensor] = []
    boxes_of, probabilities_of, attributes_of = [], [], []
    for one in passes:
        refined = one.detector.refine(one.features(), [place(one, proposed, flip) for flip in one.flips], one.sizes)
        for of_view, flip in zip(refined, one.flips, strict=True):
            views.append(of_view.boxes)
            boxes_of.append(one.to_original(of_view.boxes, flip))
            probabilities_of.append(of_view.probabilities.float())
            if of_view.attributes is not None:
                attributes_of.append(of_view.attributes.float())
    averaged = [torch.stack(values).mean(0) for values in (boxes_of, probabilities_of)]
    if any(one.detector.scores_masks for one in passes):  # the best by score are known only once masks are scored
        rules = [replace(rule, max_per_image=NO_LIMIT) for rule in rules]
    boxes, scores, labels, index = _survivors(averaged[0], averaged[1], rules)
    exact = views[0][index] if len(views) == 1 else None
    masks, mask_ious = _masks(passes, boxes, labels, exact)
    # Half precision, in which they are kept, so that an answer made at once is that made of the cache.
    attributes = torch.stack(attributes_of).mean(0)[index].half().cpu() if attributes_of else None
    return Candidates(
        image_id,
        passes[0].original,
        boxes.cpu(),
        scores.cpu(),
        labels.cpu(),
        masks.cpu(),
        attributes,
        None if mask_ious is None else mask_ious.cpu(),
    )


def _proposals(passes: Sequence[_Pass], merging: Merging) -> tuple[Callable[[_Pass, Tensor, bool], Tensor], Tensor]:
    """The proposals of all sources, merged, and how they are laid on a view."""
    found = [
        (one, flip, boxes, scores)
        for one in passes
        for (boxes, scores), flip in zip(one.detector.propose(one.features(), one.sizes), one.flips, strict=True)
    ]
    if len(found) == 1:  # nothing to merge: the proposals stay as they are, to the last bit
        return (lambda one, boxes, flip: boxes), found[0][2]
    boxes = torch.cat([one.to_original(boxes, flip) for one, flip, boxes, _ in found])
    scores = torch.cat([scores.float() for *_, scores in found])
    kept = top_survivors(boxes, scores, iou_thr=merging.proposal_iou_thr, count=merging.max_proposals)
    return (lambda one, boxes, flip: one.to_view(boxes, flip)), boxes[kept]


def _survivors(
    boxes: Tensor, probabilities: Tensor, rules: Sequence[Postprocess]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The (box, class) pairs that some rule keeps, by descending score.

    Args:
        boxes: (N, 4) in the frame of the file, where NMS is done, as postprocessing does it again.
        probabilities: (N, C + 1), background last.
        rules: at least one.

    Returns:
        Boxes, scores, labels, and which of the (N, 4) boxes each is.
    """
    floor = min(rule.lowest_score_thr for rule in rules)
    owners, labels = torch.nonzero(probabilities[:, :-1] > floor).unbind(1)
    scores = probabilities[owners, labels]
    order = scores.sort(descending=True, stable=True).indices
    owners, labels, scores = owners[order], labels[order], scores[order]
    pairs = boxes[owners]
    kept = [survivors(pairs, scores, labels, rule) for rule in rules]
    index = torch.cat(kept).unique()
    return pairs[index], scores[index], labels[index], owners[index]


def _masks(passes: Sequence[_Pass], boxes: Tensor, labels: Tensor, exact: Tensor | None) -> Segmented:
    """Average mask probabilities over the sources, and expected IoUs over the sources that predict them.

    The masks are (N, M, M), where M is the finest grid among the detectors.

    Args:
        passes: the sources.
        boxes: (N, 4) in the frame of the file.
        labels: (N,).
        exact: the same boxes in the frame of the one view, where there is but one.
    """
    scoring = any(one.detector.scores_masks for one in passes)
    if not len(labels):
        return Segmented(boxes.new_zeros((0, 1, 1)), boxes.new_zeros(0) if scoring else None)
    total, sources = boxes.new_zeros((1, 1, 1)), 0
    ious: list[Tensor] = []
    for one in passes:
        views = [exact if exact is not None else one.to_view(boxes, flip) for flip in one.flips]
        found = one.detector.segment(one.features(), views, [labels] * len(views))
        ious += [of_view.ious.float() for of_view in found if of_view.ious is not None]
        for (masks, _), flip in zip(found, one.flips, strict=True):
            upright = (masks.flip(-1) if flip else masks).float()
            grid = max(total.shape[-1], upright.shape[-1])
            total = _on_grid(total, grid) + _on_grid(upright, grid)
            sources += 1
    return Segmented(total / sources, torch.stack(ious).mean(0) if ious else None)


def _on_grid(masks: Tensor, grid: int) -> Tensor:
    """Masks (N, M, M) on a grid of another number of cells over the same boxes."""
    if masks.shape[-1] == grid:
        return masks
    return F.interpolate(masks[None], size=(grid, grid), mode="bilinear", align_corners=False)[0]


def _padded(image: Tensor, flips: Sequence[bool]) -> Tensor:
    """uint8 (3, h, w) -> (F, 3, H, W), mirrored where asked, padded at the right and below."""
    height, width = image.shape[1:]
    below, right = -height % PAD_DIVISOR, -width % PAD_DIVISOR
    return F.pad(torch.stack([image.flip(-1) if flip else image for flip in flips]), (0, right, 0, below))
