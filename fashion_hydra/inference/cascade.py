"""Predict candidates with any number of cascade detectors on any number of views of an image.

A source is one detector on one view (a scale, mirrored or not). The scheme is that of the first-place solution of
iMaterialist (Fashion) 2019: NMS merges the proposals of all sources. Every source refines the merged proposals with its
box stages; boxes, class probabilities and attribute probabilities are averaged. Every source segments the boxes that
survive NMS with its mask stages; mask probabilities are averaged. Beyond that scheme, the averaged masks may be aligned
with edges in the image. With one detector on one view, there is nothing to merge. Each source's features are computed
once and used in all three steps.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from fashion_hydra.inference.guided_filter import filter_masks
from fashion_hydra.inference.merging import Merging
from fashion_hydra.postprocess.apply import survivors
from fashion_hydra.postprocess.nms import top_survivors
from fashion_hydra.postprocess.rule import NO_LIMIT, Postprocess
from fashion_hydra.structures.batch import PAD_DIVISOR, Batch, ScaledImage, Size
from fashion_hydra.structures.detections import Candidates, Refined, Segmented


class CascadeDetector(Protocol):
    """The interface that inference requires of a model; see `fashion_hydra.model.detector.Detector`."""

    @property
    def scores_masks(self) -> bool:
        """Whether `segment` predicts the IoU of masks."""
        ...

    def features(self, images: Tensor, sizes: Sequence[Size]) -> tuple[Tensor, ...]:
        """Return the feature pyramid of padded uint8 images (B, 3, H, W)."""
        ...

    def propose(self, features: Sequence[Tensor], sizes: Sequence[Size]) -> list[tuple[Tensor, Tensor]]:
        """Return the proposals of each image: boxes (N, 4) and scores (N,)."""
        ...

    def refine(self, features: Sequence[Tensor], proposals: Sequence[Tensor], sizes: Sequence[Size]) -> list[Refined]:
        """Return the refined boxes, class probabilities and attribute probabilities of each image."""
        ...

    def segment(self, features: Sequence[Tensor], boxes: Sequence[Tensor], labels: Sequence[Tensor]) -> list[Segmented]:
        """Return the mask probabilities of each image, and the expected IoUs where the model predicts them."""
        ...


@torch.no_grad()
def find_candidates(
    detector: CascadeDetector, batch: Batch, rules: Sequence[Postprocess], *, mask_grid: int | None = None
) -> list[Candidates]:
    """Return the candidates of each image of a batch on the CPU, from one detector on one view.

    Args:
        detector: the detector, in evaluation mode.
        batch: the images.
        rules: see `merge_sources`.
        mask_grid: see `Merging`.
    """
    frames = zip(batch.sizes, batch.original_sizes, batch.image_ids, strict=True)
    return [
        _merge(
            [_Pass(detector, batch.images[i : i + 1], size, original, (False,), "device")],
            image_id,
            rules,
            Merging(mask_grid=mask_grid),
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
    """Return the candidates of one image on the CPU: every detection that at least one of the rules may keep.

    A mask is computed only for boxes that survive the NMS of at least one rule. So apply only rules to the result that
    are in `rules`, or stricter than a rule in `rules`.

    Args:
        detectors: the detectors, in evaluation mode and with the same classes.
        scaled: the image at every scale.
        rules: at least one rule.
        merging: the flips, and the options for merging sources.
        device: device of the detectors.
    """
    passes = [
        _Pass(
            detector,
            _padded(image.to(device), flips),
            (image.shape[1], image.shape[2]),
            scaled.size,
            flips,
            merging.feature_cache,
            weight,
        )
        for detector, weight in zip(detectors, merging.weights or [1.0] * len(detectors), strict=True)
        for image in scaled.images
        for flips in merging.batches()
    ]
    return _merge(passes, scaled.image_id, rules, merging)


class _Pass:
    """One detector on one scale of an image, with one or two flips as one batch; `weight` is the detector's."""

    def __init__(
        self,
        detector: CascadeDetector,
        images: Tensor,
        size: Size,
        original: Size,
        flips: tuple[bool, ...],
        feature_cache: str,
        weight: float = 1.0,
    ) -> None:
        self.detector, self.images, self.size, self.original, self.flips = detector, images, size, original, flips
        self.sizes, self.weight = [size] * len(flips), weight
        self._feature_cache = feature_cache
        self._features: tuple[Tensor, ...] | None = None
        self._scale = images.new_tensor([original[1] / size[1], original[0] / size[0]] * 2, dtype=torch.float32)

    def features(self) -> tuple[Tensor, ...]:
        """Return the feature pyramid on the images' device, computed once unless `feature_cache` is `recompute`."""
        if self._features is not None:
            return tuple(level.to(self.images.device, non_blocking=True) for level in self._features)
        made = self.detector.features(self.images, self.sizes)
        if self._feature_cache == "host":
            self._features = tuple(level.cpu() for level in made)
        elif self._feature_cache == "device":
            self._features = made
        return made

    def image(self) -> Tensor:
        """Return the image without padding, uint8 (3, h, w)."""
        height, width = self.size
        view = self.images[0, :, :height, :width]
        return view.flip(-1) if self.flips[0] else view

    def to_original(self, boxes: Tensor, flip: bool) -> Tensor:
        """Map boxes (N, 4) from a view to the frame of the original image."""
        return self._mirrored(boxes.float(), flip) * self._scale

    def to_view(self, boxes: Tensor, flip: bool) -> Tensor:
        """Map boxes (N, 4) from the frame of the original image to a view."""
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
    weights = [one.weight for one in passes for _ in one.flips]
    for one in passes:
        refined = one.detector.refine(one.features(), [place(one, proposed, flip) for flip in one.flips], one.sizes)
        for of_view, flip in zip(refined, one.flips, strict=True):
            views.append(of_view.boxes)
            boxes_of.append(one.to_original(of_view.boxes, flip))
            probabilities_of.append(of_view.probabilities.float())
            if of_view.attributes is not None:
                attributes_of.append(of_view.attributes.float())
    averaged = [_mean(values, weights) for values in (boxes_of, probabilities_of)]
    has_mask_ious = _score_masks(passes)
    # If scores depend on masks, the best candidates are known only once the masks are.
    rules = [replace(r, max_per_image=NO_LIMIT) if r.rescores(has_mask_ious=has_mask_ious) else r for r in rules]
    boxes, scores, labels, index = _survivors(averaged[0], averaged[1], rules)
    exact = views[0][index] if len(views) == 1 else None
    masks, mask_ious = _masks(passes, boxes, labels, exact)
    if merging.mask_grid is not None and len(labels):
        clearest = max(passes, key=lambda one: one.size[0] * one.size[1])
        masks = filter_masks(masks, boxes, clearest.image(), clearest.original, grid=merging.mask_grid)
    # Half precision, as in the cache, so that detections do not depend on whether candidates were cached.
    attributes = _mean(attributes_of, weights)[index].half().cpu() if attributes_of else None
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
    """Merge the proposals of all sources; return a function that maps them to a view, and the proposals."""
    found = [
        (one, flip, boxes, scores)
        for one in passes
        for (boxes, scores), flip in zip(one.detector.propose(one.features(), one.sizes), one.flips, strict=True)
    ]
    if len(found) == 1:  # nothing to merge: leave the proposals bit-identical
        return (lambda one, boxes, flip: boxes), found[0][2]
    boxes = torch.cat([one.to_original(boxes, flip) for one, flip, boxes, _ in found])
    scores = torch.cat([scores.float() for *_, scores in found])
    kept = top_survivors(boxes, scores, iou_thr=merging.proposal_iou_thr, count=merging.max_proposals)
    return (lambda one, boxes, flip: one.to_view(boxes, flip)), boxes[kept]


def _survivors(
    boxes: Tensor, probabilities: Tensor, rules: Sequence[Postprocess]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the (box, class) pairs that at least one rule may keep, by descending score.

    Args:
        boxes: (N, 4) in the frame of the original image. NMS runs in this frame, here and in postprocessing.
        probabilities: (N, C + 1), class probabilities, background last.
        rules: at least one rule.

    Returns:
        Boxes, scores and labels of the pairs, and each pair's index into the N boxes.
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


def _score_masks(passes: Sequence[_Pass]) -> bool:
    return any(one.detector.scores_masks for one in passes)


def _masks(passes: Sequence[_Pass], boxes: Tensor, labels: Tensor, exact: Tensor | None) -> Segmented:
    """Average mask probabilities over the sources, and expected IoUs over the sources that predict them.

    The masks are (N, M, M), where M is the finest grid among the detectors.

    Args:
        passes: the sources.
        boxes: (N, 4) in the frame of the original image.
        labels: (N,).
        exact: the same boxes in the frame of the view, if there is only one view; else None.
    """
    if not len(labels):
        return Segmented(boxes.new_zeros((0, 1, 1)), boxes.new_zeros(0) if _score_masks(passes) else None)
    total, weights = boxes.new_zeros((1, 1, 1)), 0.0
    ious: list[Tensor] = []
    weights_of_ious: list[float] = []
    for one in passes:
        views = [exact if exact is not None else one.to_view(boxes, flip) for flip in one.flips]
        found = one.detector.segment(one.features(), views, [labels] * len(views))
        scored = [of_view.ious.float() for of_view in found if of_view.ious is not None]
        ious += scored
        weights_of_ious += [one.weight] * len(scored)
        for (masks, _), flip in zip(found, one.flips, strict=True):
            upright = (masks.flip(-1) if flip else masks).float()
            grid = max(total.shape[-1], upright.shape[-1])
            total = _on_grid(total, grid) + one.weight * _on_grid(upright, grid)
            weights += one.weight
    return Segmented(total / weights, _mean(ious, weights_of_ious) if ious else None)


def _mean(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of tensors of one shape."""
    stacked = torch.stack(list(values))
    if len(set(weights)) == 1:
        return stacked.mean(0)
    shares = stacked.new_tensor(weights) / sum(weights)
    return (stacked * shares.view(-1, *[1] * (stacked.ndim - 1))).sum(0)


def _on_grid(masks: Tensor, grid: int) -> Tensor:
    """Resample masks (N, M, M) to a grid of `grid` x `grid` cells over the same boxes."""
    if masks.shape[-1] == grid:
        return masks
    return F.interpolate(masks[None], size=(grid, grid), mode="bilinear", align_corners=False)[0]


def _padded(image: Tensor, flips: Sequence[bool]) -> Tensor:
    """Stack the requested flips of an image, uint8 (3, h, w), padded at the right and bottom: (F, 3, H, W)."""
    height, width = image.shape[1:]
    below, right = -height % PAD_DIVISOR, -width % PAD_DIVISOR
    return F.pad(torch.stack([image.flip(-1) if flip else image for flip in flips]), (0, right, 0, below))
