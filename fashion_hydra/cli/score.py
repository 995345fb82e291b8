"""`fashion-hydra score`: print the competition score of a submission as the last line of the output."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fashion_hydra.utils.errors import UserError

if TYPE_CHECKING:  # `--help` must not wait for numpy
    from fashion_hydra.evaluation.competition_score import Score
    from fashion_hydra.formats.submission import MaskTable

_FEWEST_IMAGES = 10  # an interval over fewer images would say little
_NAMED_IMAGES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("truth", metavar="TRUTH.csv", type=Path, help="train.csv (2019, 2020) or a submission")
    parser.add_argument("submission", metavar="SUBMISSION.csv", type=Path, help="both may be .csv.gz, .csv.zip")
    parser.add_argument(
        "--pooling",
        choices=("class", "image"),
        default="class",
        help="average the precision over an image's classes, or pool their masks first (default: class)",
    )
    parser.add_argument(
        "--match",
        choices=("class_id", "category"),
        default="class_id",
        help="what must be equal: the ClassId with attributes, or only the category (default: class_id)",
    )
    parser.add_argument("--per-class", action="store_true", help="print a table of classes, best first")
    parser.add_argument(
        "--per-attribute",
        action="store_true",
        help="print F1 of each attribute on masks matched by category, and how often a mask's attributes are all right",
    )
    parser.add_argument(
        "--labels",
        metavar="label_descriptions.json",
        type=Path,
        help="names for the tables (with --per-class or --per-attribute)",
    )


def run(args: argparse.Namespace) -> int:
    """Score the submission; print tables and the score to stdout, and warnings to stderr."""
    import numpy as np

    from fashion_hydra.evaluation.bootstrap import bootstrap
    from fashion_hydra.evaluation.matching import masks_to_match
    from fashion_hydra.evaluation.score_submission import find_overlaps, reach_of, score_masks
    from fashion_hydra.formats.submission import read_masks

    if args.labels and not (args.per_class or args.per_attribute):
        raise UserError(
            f"--labels {args.labels}: needs --per-class or --per-attribute. Add one of them, or remove --labels"
        )
    names = _read_names(args.labels) if args.labels else {}
    truth, predicted = read_masks(args.truth), read_masks(args.submission)
    overlaps = find_overlaps(predicted)
    found = reach_of(truth, predicted, pooling=args.pooling)
    if args.match == "class_id" and found.with_attributes:
        print(f"note: {found}; --match category ignores attributes", file=sys.stderr)
    score, missing = score_masks(
        masks_to_match(truth, args.match), masks_to_match(predicted, args.match), pooling=args.pooling
    )
    if overlaps:
        image, class_id = overlaps[0]
        print(
            f"warning: {args.submission}: masks of one image and class overlap, which the rules forbid: "
            f"{len(overlaps)} times, the first image {image}, class {class_id}",
            file=sys.stderr,
        )
    if missing:
        more = f" and {len(missing) - _NAMED_IMAGES} more" if len(missing) > _NAMED_IMAGES else ""
        print(
            f"warning: {args.submission}: {len(missing)} of {len(truth)} images are missing and count as "
            f"empty: {', '.join(missing[:_NAMED_IMAGES])}{more}",
            file=sys.stderr,
        )
    if args.per_class:
        print(_class_table(score, names))
    if args.per_attribute:
        print(_attribute_tables(truth, predicted, names))
    if len(score.per_image) >= _FEWEST_IMAGES:
        interval = bootstrap(np.array(list(score.per_image.values())), seed=0)
        of = f"95 % of a bootstrap over {len(score.per_image)} images"
        print(f"interval [{interval.low:.6f}, {interval.high:.6f}], {of}")
    print(f"score {score.value:.6f}")
    return 0


def _attribute_tables(truth: "MaskTable", predicted: "MaskTable", names: Mapping[str, str]) -> str:
    """Return a table with a line per attribute, best first, and one with a line per number of attributes of a mask."""
    from fashion_hydra.evaluation.attribute_scores import score_attributes

    scores = score_attributes(truth, predicted)
    lines = ["attribute       F1  right  wrong  missed  name"]
    for a in sorted(scores.attributes, key=lambda a: (-scores.f1(a), a)):
        counts = f"{scores.hits[a]:6} {scores.false_positives[a]:6} {scores.misses[a]:7}"
        lines.append(f"{a:9} {scores.f1(a):8.6f} {counts}  {names.get(f'attribute {a}', '')}".rstrip())
    lines.append(f"mean F1 {scores.mean_f1():.6f}")
    lines.append("\nattributes    masks  all right   share")
    for count in sorted({count for _, count in scores.sets}):
        pairs, right = scores.sets_right(count=count)
        lines.append(f"{count:10} {pairs:8} {right:10}  {right / pairs:6.4f}")
    return "\n".join([*lines, ""])


def _class_table(score: "Score", names: Mapping[str, str]) -> str:
    """Return a table with one line per class, best first; more frequent classes come first in ties."""
    ordered = sorted(score.per_class.items(), key=lambda item: (-item[1].score, -item[1].n_true, item[0]))
    width = max((len(class_id) for class_id, _ in ordered), default=0)
    width = max(width, len("class"))
    lines = [f"{'class':>{width}}    score  images   truth  predicted  name"]
    lines += [
        f"{class_id:>{width}} {c.score:8.6f} {c.n_images:7} {c.n_true:7} {c.n_predicted:10}  {_name(class_id, names)}"
        for class_id, c in ordered
    ]
    return "\n".join(line.rstrip() for line in lines)


def _name(class_id: str, names: Mapping[str, str]) -> str:
    """Return the name of a ClassId, such as `pants: capri, plain` for `6_28_77`; empty if unknown."""
    category, *attributes = class_id.split("_")
    text = names.get(f"category {category}", "")
    known = [names.get(f"attribute {a}", a) for a in attributes]
    return f"{text}: {', '.join(known)}" if text and known else text


def _read_names(path: Path) -> dict[str, str]:
    """Read Kaggle's label_descriptions.json as a mapping such as `category 6` or `attribute 28` -> name."""
    from fashion_hydra.utils.files import read_json

    try:
        labels = read_json(path)
        return {
            f"{kind} {entry['id']}": str(entry["name"])
            for kind, listed in (("category", labels["categories"]), ("attribute", labels["attributes"]))
            for entry in listed
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: not Kaggle's label_descriptions.json ({error!r}), which has lists `categories` and "
            "`attributes` of entries with `id` and `name`"
        ) from error
