"""Statistics of a data set, computed from the annotation arrays without decoding images."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fashion_hydra.data.annotations import Annotations, DataFault
from fashion_hydra.data.augment import Augment
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.formats.submission import SUBMISSION_SIZE

SMALL = 32**2  # COCO's limit for small objects, in pixels
TINY = 20  # the winner dropped predictions below this many pixels of the submission's grid
RARE = 50  # a category with fewer masks is reported as rare
TOGETHER_LIMIT = 60  # maximum number of categories in the co-occurrence table


@dataclass(frozen=True)
class CategoryRow:
    """One category of the data set.

    Args:
        id: category id.
        name: category name in the label descriptions.
        masks: number of masks.
        images: number of images with at least one mask.
        area: 10, 50 and 90 % quantiles of the share of the image that a mask covers.
        small: share of masks below COCO's 32 x 32 pixels on the photo.
        tiny: share of masks below 20 pixels after the photo is resized to 512 x 512.
        with_attributes: share of masks that carry attributes.
        class_ids: number of distinct ClassIds, including attributes.
    """

    id: int
    name: str
    masks: int
    images: int
    area: tuple[float, float, float]
    small: float
    tiny: float
    with_attributes: float
    class_ids: int


@dataclass(frozen=True)
class Attributes:
    """Attribute counts of a data set.

    Args:
        masks: number of masks that carry at least one attribute.
        counts: attribute id -> number of masks that carry it, the most frequent first.
        class_ids: ClassId with attributes -> number of masks, the most frequent first.
    """

    masks: int
    counts: Mapping[int, int]
    class_ids: Mapping[str, int]


@dataclass(frozen=True)
class Statistics:
    """Statistics of a data set.

    Args:
        sizes: int64 (I, 2), height and width of the photos in pixels.
        per_image: int64 (I,), number of masks per image.
        owners: int64 (M,), image index of each mask.
        areas: int64 (M,), area of each mask in pixels of the photo.
        shares: float64 (M,), share of its image that each mask covers.
        categories: categories that occur, the most frequent first.
        absent: id -> name of the categories without masks.
        attributes: see `Attributes`.
        class_ids: number of distinct ClassIds, with and without attributes.
        together_ids: category ids of `together`, ascending; only the most frequent `TOGETHER_LIMIT`.
        together: int64 (C, C), number of images that have both the row's and the column's category.
        faults: kind of fault or remark -> count, the most frequent first.
        examples: kind -> first fault of that kind.
        crowds: number of crowd regions.
    """

    sizes: np.ndarray
    per_image: np.ndarray
    owners: np.ndarray
    areas: np.ndarray
    shares: np.ndarray
    categories: Sequence[CategoryRow]
    absent: Mapping[int, str]
    attributes: Attributes
    class_ids: int
    together_ids: Sequence[int]
    together: np.ndarray
    faults: Mapping[str, int]
    examples: Mapping[str, DataFault]
    crowds: int

    def count_faults(self, *, remarks: bool) -> int:
        """Count the remarks, or the faults that are not remarks."""
        return sum(count for kind, count in self.faults.items() if self.examples[kind].is_remark == remarks)

    def training_scale(self, augment: Augment, short_edge: float) -> np.ndarray:
        """Return the scale factor of each photo if training draws this `short_edge`: float64 (I,)."""
        return np.minimum(short_edge / self.sizes.min(axis=1), augment.long_edge / self.sizes.max(axis=1))


def count(annotations: Annotations, faults: Sequence[DataFault]) -> Statistics:
    """Count everything that the page shows.

    Args:
        annotations: the data set.
        faults: faults and remarks found while reading the annotations.
    """
    sizes = np.asarray(annotations.sizes, dtype=np.int64)
    per_image = np.diff(annotations.first)
    owners = annotations.owners()
    areas = np.asarray(annotations.areas)
    shares = areas / sizes.prod(axis=1)[owners]
    class_ids, codes = np.unique(annotations.class_ids, return_inverse=True)
    table = annotations.category_table()
    rows = _category_rows(annotations, table, areas, shares, class_ids, codes)
    present = {row.id for row in rows}
    together_ids = sorted(row.id for row in rows[:TOGETHER_LIMIT])
    kinds = Counter(fault.kind for fault in faults)
    return Statistics(
        sizes=sizes,
        per_image=per_image,
        owners=owners,
        areas=areas,
        shares=shares,
        categories=rows,
        absent={key: name for key, name in annotations.names.items() if key not in present},
        attributes=_attributes(class_ids, np.bincount(codes, minlength=len(class_ids))),
        class_ids=len(class_ids),
        together_ids=together_ids,
        together=_together(annotations, table, together_ids),
        faults=dict(sorted(kinds.items(), key=lambda item: (-item[1], item[0]))),
        examples={fault.kind: fault for fault in reversed(faults)},
        crowds=len(annotations.crowd_ids),
    )


def submission_areas(shares: np.ndarray) -> np.ndarray:
    """Return mask areas in pixels of the submission's grid, from the masks' shares of the image: float64 (M,)."""
    return shares * SUBMISSION_SIZE**2


def _category_rows(
    annotations: Annotations,
    table: np.ndarray,
    areas: np.ndarray,
    shares: np.ndarray,
    class_ids: np.ndarray,
    codes: np.ndarray,
) -> list[CategoryRow]:
    images = dict(zip(annotations.names, table.sum(axis=0, dtype=np.int64).tolist(), strict=True))
    distinct = Counter(map(category_of, class_ids.tolist()))
    carries = np.array(["_" in class_id for class_id in class_ids.tolist()], dtype=bool)[codes]
    tiny = submission_areas(shares) < TINY
    order = np.argsort(annotations.categories, kind="stable")
    found, sizes = np.unique(annotations.categories, return_counts=True)
    rows = []
    for category, size, end in zip(found.tolist(), sizes, np.cumsum(sizes), strict=True):
        masks = order[end - size : end]
        low, median, high = np.quantile(shares[masks], (0.1, 0.5, 0.9)).tolist()
        row = CategoryRow(
            id=category,
            name=annotations.names[category],
            masks=len(masks),
            images=images[category],
            area=(low, median, high),
            small=float((areas[masks] < SMALL).mean()),
            tiny=float(tiny[masks].mean()),
            with_attributes=float(carries[masks].mean()),
            class_ids=distinct[category],
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.masks, row.id))


def _attributes(class_ids: np.ndarray, masks: np.ndarray) -> Attributes:
    carrying = {c: n for c, n in zip(class_ids.tolist(), masks.tolist(), strict=True) if "_" in c}
    counts: Counter[int] = Counter()
    for class_id, n in carrying.items():
        for attribute in set(class_id.split("_")[1:]):
            counts[int(attribute)] += n
    return Attributes(
        masks=sum(carrying.values()),
        counts=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        class_ids=dict(sorted(carrying.items(), key=lambda item: (-item[1], item[0]))),
    )


def _together(annotations: Annotations, table: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    column = {category: i for i, category in enumerate(annotations.names)}
    chosen = table[:, [column[i] for i in ids]].astype(np.float32)  # counts are exact up to 2^24 images
    return (chosen.T @ chosen).astype(np.int64)


def stand_outs(statistics: Statistics, augment: Augment, augment_name: str) -> list[str]:
    """Return what matters most for training on this data set, one sentence per finding.

    Args:
        statistics: statistics of the data set.
        augment: training augmentation to compare sizes with.
        augment_name: name of the augmentation in the config.
    """
    notes = [*_notes_on_classes(statistics), *_notes_on_masks(statistics)]
    low, high = augment.short_edge
    enlarged = float((statistics.training_scale(augment, low) > 1).mean())
    shrunk = float((statistics.training_scale(augment, high) < 1).mean())
    if enlarged > 0.05:
        notes.append(f"augment={augment_name} always enlarges {percent(enlarged)} of the photos.")
    if shrunk > 0.05:
        notes.append(f"augment={augment_name} always shrinks {percent(shrunk)} of the photos.")
    return notes


def _notes_on_classes(statistics: Statistics) -> list[str]:
    notes, rows = [], statistics.categories
    if len(rows) > 1:
        most, least = rows[0], rows[-1]
        notes.append(
            f"Category frequencies differ by a factor of {most.masks / least.masks:,.0f}, "
            f"from {_listed([most.name])} ({most.masks:,} masks) to {_listed([least.name])} ({least.masks:,})."
        )
    if rare := [row.name for row in reversed(rows) if row.masks < RARE]:
        notes.append(f"{len(rare)} of {len(rows)} categories have fewer than {RARE} masks: {_listed(rare)}.")
    if absent := list(statistics.absent.values()):
        few = f"{len(absent)} of {len(rows) + len(absent)} described categories"
        notes.append(f"{few} have no masks; classes=present trains on the others only.")
    if bound := [row.name for row in rows if row.with_attributes >= 0.9]:
        notes.append(
            f"At least 90 % of the masks of {_listed(bound)} carry attributes. The score compares whole ClassIds, "
            "so a prediction without attributes rarely matches."
        )
    return notes


def _notes_on_masks(statistics: Statistics) -> list[str]:
    notes = []
    if len(statistics.areas):
        small = float((statistics.areas < SMALL).mean())
        tiny = float((submission_areas(statistics.shares) < TINY).mean())
        notes.append(
            f"{percent(small)} of the masks are small (below 32 × 32 pixels on the photo); {percent(tiny)} cover "
            f"fewer than {TINY} pixels of the submission's {SUBMISSION_SIZE} × {SUBMISSION_SIZE} grid."
        )
    if bare := int((statistics.per_image == 0).sum()):
        notes.append(f"{bare:,} images have no masks.")
    return notes


def _listed(names: Sequence[str], limit: int = 8) -> str:
    short = [name.partition(",")[0] for name in names]
    more = f" and {len(short) - limit} more" if len(short) > limit else ""
    return ", ".join(short[:limit]) + more


def percent(share: float) -> str:
    """Format a share as a percentage: `0 %`, `0.3 %`, `12 %`."""
    value = share * 100
    if value == 0 or value >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.095 else f"{value:.1g} %" if value >= 0.001 else "< 0.001 %"
