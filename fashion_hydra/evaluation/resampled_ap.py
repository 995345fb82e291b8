"""COCO's average precision of resampled images, for intervals: matched once, then summed up for each draw."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.evaluation.coco_ap import (
    THRESHOLDS,
    ClassMatches,
    Overlap,
    TrueMask,
    class_matches,
    mask_iou,
    matcher,
    mean_precision,
)
from fashion_hydra.structures.detections import Detections
from fashion_hydra.utils.types import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class _Curve:
    """The N detections of a class in I images, the best first, up to the last one that is a hit at any threshold.

    Args:
        objects: (I,), number of true objects in each image.
        image: (N,), image index of each detection.
        hits: (N, T), whether a detection is a hit at each threshold.
        judged: (N, T), whether a detection is a hit or a false positive at each threshold, and not ignored.
    """

    objects: FloatArray
    image: IntArray
    hits: BoolArray
    judged: BoolArray

    @classmethod
    def of(cls, images: Sequence[ClassMatches]) -> "_Curve":
        counts = [len(one.scores) for one in images]
        first = np.concatenate([[0], np.cumsum(counts)])
        hits = np.zeros((first[-1], len(THRESHOLDS)), bool)
        judged = np.ones_like(hits)
        for start, one in zip(first, images, strict=False):
            for n, (matched, aside) in one.matched.items():
                hits[start + n], judged[start + n] = matched[0] & ~aside[0], ~aside[0]
        order = np.argsort(-np.concatenate([np.zeros(0), *(one.scores for one in images)]), kind="stable")
        last = np.flatnonzero(hits[order].any(axis=1))
        order = order[: last[-1] + 1 if len(last) else 0]
        objects = np.array([len(one.true_areas) for one in images], np.float64)
        return cls(objects, np.repeat(np.arange(len(images)), counts)[order], hits[order], judged[order])

    def precision(self, weights: FloatArray) -> FloatArray:
        """Return precision averaged over recalls, at each threshold: (T,); NaN if there are no objects."""
        objects = float(weights @ self.objects)
        if not objects:
            return np.full(len(THRESHOLDS), np.nan)
        if not len(self.image):
            return np.zeros(len(THRESHOLDS))
        counted = weights[self.image, None]
        found = (counted * self.hits).cumsum(axis=0)
        judged = (counted * self.judged).cumsum(axis=0)
        return mean_precision(found, judged, objects)


class ResampledAP:
    """COCO's mask AP of weighted images.

    Equals the AP of a data set with copies of the images, if no two images have detections with the same score.

    Args:
        truth: image id -> its objects and crowd regions.
        found: image id -> detections on the same frame; missing images count as empty.
        labels: number of classes.
        overlap: function that computes the overlaps of detections with true masks.
    """

    def __init__(
        self,
        truth: Mapping[str, Sequence[TrueMask]],
        found: Mapping[str, Detections],
        *,
        labels: int,
        overlap: Overlap = mask_iou,
    ) -> None:
        match = matcher(overlap)
        of_image = [
            class_matches({name: objects}, {name: found[name]} if name in found else {}, range(labels), match, {})
            for name, objects in truth.items()
        ]
        self._curves = [_Curve.of([classes[label] for classes in of_image]) for label in range(labels)]

    def of_class(self, weights: FloatArray) -> FloatArray:
        """Return precision averaged over recalls, of each class at each IoU threshold from 0.50 to 0.95.

        Args:
            weights: (I,), how often each image counts, in the order of the truth.

        Returns:
            (labels, 10); NaN for classes without objects in the images that count.
        """
        return np.array([curve.precision(weights) for curve in self._curves]).reshape(-1, len(THRESHOLDS))

    def __call__(self, weights: FloatArray) -> FloatArray:
        """Return AP at each IoU threshold, the mean over classes with objects: (10,); 0 if there are none."""
        of_class = self.of_class(weights)
        known = ~np.isnan(of_class[:, 0])
        return of_class[known].mean(axis=0) if known.any() else np.zeros(len(THRESHOLDS))
