"""`fashion-hydra eda DIR`: write an HTML page about a data set."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fashion_hydra.cli._data_arguments import add_data_arguments, reader_of
from fashion_hydra.utils.errors import UserError

if TYPE_CHECKING:  # `--help` must not wait for albumentations
    from fashion_hydra.data.augment import Augment

_AUGMENTS = Path(__file__).resolve().parents[2] / "conf" / "augment"
_MOST_SAMPLES = 500
_AUGMENTED_IMAGES, _DRAWS = 4, 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_data_arguments(parser)
    parser.add_argument("--out", type=Path, default=Path("eda.html"), metavar="HTML", help="default: %(default)s")
    parser.add_argument("--samples", type=int, default=12, metavar="N", help="images to show (default: %(default)s)")
    parser.add_argument(
        "--augment",
        default="winner",
        metavar="NAME",
        help=f"augmentation shown: {', '.join(_known_augments())} (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="K",
        help="the same seed shows the same images (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Read the data set, write the page, and print its path."""
    if not 0 <= args.samples <= _MOST_SAMPLES:
        raise UserError(f"--samples {args.samples}: give 0 to {_MOST_SAMPLES}")
    if args.seed < 0:
        raise UserError(f"--seed {args.seed}: give 0 or more")
    if args.out.is_dir():
        raise UserError(f"--out {args.out}: a folder; name a file, such as {args.out / 'eda.html'}")
    augment = _read_augment(args.augment)

    from tqdm import tqdm

    from fashion_hydra.data.annotation_cache import load_annotations
    from fashion_hydra.report.dataset.gallery import choose_images, draw_augmented, draw_cards
    from fashion_hydra.report.dataset.page import DatasetPage, write_dataset_page
    from fashion_hydra.report.dataset.statistics import count

    annotations, faults = load_annotations(reader_of(args))
    table = annotations.category_table()
    images = choose_images(table, args.samples, args.seed)
    varied = images[:_AUGMENTED_IMAGES]
    with tqdm(total=len(images) + len(varied), desc="drawing", unit=" images", disable=None) as bar:
        cards, draws = [], []
        for card in draw_cards(annotations, images):
            cards.append(card)
            bar.update()
        for drawn in draw_augmented(annotations, varied, augment, draws=_DRAWS, seed=args.seed):
            draws.append(drawn)
            bar.update()
    page = DatasetPage(
        title=Path(args.folder).resolve().name,
        folder=args.folder,
        names=annotations.names,
        attribute_names=_attribute_names(Path(args.folder)),
        statistics=count(annotations, faults),
        categories_per_image=table.sum(axis=1),
        augment=augment,
        augment_name=args.augment,
        cards=cards,
        draws=draws,
    )
    write_dataset_page(args.out, page)
    print(f"{len(annotations)} images with {len(annotations.categories)} masks: {args.out}")
    return 0


def _known_augments() -> list[str]:
    return sorted(path.stem for path in _AUGMENTS.glob("*.yaml"))


def _read_augment(name: str) -> "Augment":
    if name not in _known_augments():
        raise UserError(f"--augment {name}: give one of {', '.join(_known_augments())}")
    import yaml

    from fashion_hydra.data.augment import Augment

    path = _AUGMENTS / f"{name}.yaml"
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        return Augment(**values)
    except TypeError as error:
        raise UserError(f"{path}: {error}") from error


def _attribute_names(folder: Path) -> Mapping[int, str]:
    """Return attribute id -> name; empty if label_descriptions.json has no attributes or does not exist."""
    path = folder / "label_descriptions.json"
    if not path.is_file():
        return {}
    from fashion_hydra.utils.files import read_json

    try:
        described = read_json(path)
        return {int(entry["id"]): str(entry["name"]) for entry in described.get("attributes", ())}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path}: not a list of attributes with id and name ({error!r})") from error
