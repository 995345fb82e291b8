"""Count which class is predicted in place of which."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from fashion_hydra.evaluation.competition_score import iou_matrix, match
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.structures.rle import CocoRLE

Confusions = Counter[tuple[int | None, int | None]]
"""(true category, predicted category) -> pairs of masks; None for no true mask or no predicted mask."""


def confusions(predicted: Sequence[tuple[str, CocoRLE]], true: Sequence[tuple[str, CocoRLE]]) -> Confusions:
    """Count the category pairs of an image: masks with an IoU above 0.5 are paired once, first within a category.

    Args:
        predicted: ClassId (attributes are ignored) and mask of each prediction.
        true: ClassId (attributes are ignored) and mask of each true object.
    """
    iou_NM = iou_matrix([mask for _, mask in predicted], [mask for _, mask in true])
    ours, theirs = (np.array([category_of(i) for i, _ in masks], np.int64) for masks in (predicted, true))
    pairs = [*match(np.where(ours[:, None] == theirs, iou_NM, 0.0))]
    for axis, taken in enumerate(zip(*pairs, strict=True)):
        iou_NM[np.s_[list(taken), :] if axis == 0 else np.s_[:, list(taken)]] = 0.0
    pairs += [*match(iou_NM)]
    found = Confusions((int(theirs[column]), int(ours[row])) for row, column in pairs)
    rows, columns = {int(row) for row, _ in pairs}, {int(column) for _, column in pairs}
    found.update((None, int(ours[row])) for row in set(range(len(ours))) - rows)
    found.update((int(theirs[column]), None) for column in set(range(len(theirs))) - columns)
    return found
