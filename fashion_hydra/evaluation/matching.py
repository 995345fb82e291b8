"""Match predictions with true masks by the whole ClassId, attributes included, or by category."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fashion_hydra.evaluation.competition_score import POOLINGS, ClassMasks, mean
from fashion_hydra.formats.class_id import category_of
from fashion_hydra.structures.rle import CocoRLE
from fashion_hydra.utils.errors import UserError

CLASS_ID, CATEGORY = MATCHES = ("class_id", "category")
"""`class_id` compares whole ClassIds, as in the competition; `category` ignores attributes."""


def by_category(masks: ClassMasks) -> dict[str, list[CocoRLE]]:
    """Group the masks of an image by category: masks of `6`, `6_28` and `6_28_77` all become masks of `6`."""
    merged: dict[str, list[CocoRLE]] = {}
    for class_id, of_class in masks.items():
        merged.setdefault(str(category_of(class_id)), []).extend(of_class)
    return merged


def masks_to_match(table: Mapping[str, ClassMasks], match: str) -> Mapping[str, ClassMasks]:
    """Group the masks of several images, true or predicted, by ClassId or category: ImageId -> class -> masks.

    Raises:
        UserError: `match` is not one of `MATCHES`.
    """
    if match not in MATCHES:
        raise UserError(f"score.match={match}: choose one of {', '.join(MATCHES)}")
    return table if match == CLASS_ID else {image: by_category(masks) for image, masks in table.items()}


@dataclass(frozen=True)
class Reach:
    """The highest score that predictions without some attributes can reach.

    Args:
        masks: number of true masks.
        with_attributes: number of true masks with attributes that no prediction has.
        highest: score by ClassId of a prediction with all other masks, perfectly, and nothing else.
    """

    masks: int
    with_attributes: int
    highest: float

    def __str__(self) -> str:
        return (
            f"{self.with_attributes} of {self.masks} true masks have attributes that no prediction has, so by ClassId "
            f"a score of at most {self.highest:.4f} can be reached"
        )


def reach(images: Iterable[Sequence[str]], can_answer: Callable[[str], bool], *, pooling: str = "class") -> Reach:
    """Compute the highest score that predictions can reach.

    Args:
        images: ClassIds of each image's true masks.
        can_answer: function that returns whether a prediction can have a ClassId.
        pooling: pooling of the score, see `fashion_hydra.evaluation.competition_score`.
    """
    if pooling not in POOLINGS:
        raise UserError(f"pooling={pooling}: choose one of {', '.join(POOLINGS)}")
    count, lost, shares = 0, 0, []
    for class_ids in images:
        pooled = class_ids if pooling == "image" else set(class_ids)
        shares.append(sum(map(can_answer, pooled)) / len(pooled) if pooled else 1.0)
        count += len(class_ids)
        lost += sum("_" in class_id and not can_answer(class_id) for class_id in class_ids)
    return Reach(count, lost, mean(shares) if shares else 1.0)


def reach_of_masks(
    truth: Mapping[str, ClassMasks], can_answer: Callable[[str], bool], *, pooling: str = "class"
) -> Reach:
    """Compute `reach` from masks: ImageId -> ClassId -> masks."""
    images = ([class_id for class_id, masks in of_image.items() for _ in masks] for of_image in truth.values())
    return reach(images, can_answer, pooling=pooling)


def choose_match(asked: str | None, found: Reach) -> str:
    """Return `asked`; if it is None, `class_id`, or `category` if attributes make the score by ClassId 0.

    Raises:
        UserError: `asked` is not one of `MATCHES`.
    """
    if asked is not None and asked not in MATCHES:
        raise UserError(f"score.match={asked}: must be null, or one of {', '.join(MATCHES)}")
    nothing = found.with_attributes > 0 and found.highest == 0
    return asked or (CATEGORY if nothing else CLASS_ID)


def describe_match(asked: str | None, found: Reach) -> str:
    """Describe in one line how masks are matched and why; empty if there is nothing to explain."""
    match = choose_match(asked, found)
    if not found.with_attributes:
        return "by category" if asked == CATEGORY else ""
    other = CLASS_ID if match == CATEGORY else CATEGORY
    what = "category" if match == CATEGORY else "ClassId"
    return f"by {what}: {found} (score.match={other} changes this)"
