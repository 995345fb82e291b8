"""The page of a data set: one HTML file without anything from outside."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from fashion_hydra.data.augment import Augment
from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.report.dataset.figures import (
    aspects_figure,
    object_sizes_figure,
    per_image_figure,
    shares_figure,
    sizes_figure,
)
from fashion_hydra.report.dataset.gallery import Card, Draws, Picture
from fashion_hydra.report.dataset.statistics import TINY, Statistics, percent, stand_outs
from fashion_hydra.report.dataset.style import SCRIPT, STYLE
from fashion_hydra.report.dataset.tables import (
    attributes_section,
    classes_section,
    faults_card,
    short,
    swatch,
    together_section,
)
from fashion_hydra.utils.files import atomic_write

_SECTIONS = (
    ("classes", "Classes"),
    ("attributes", "Attributes"),
    ("sizes", "Sizes"),
    ("together", "Together"),
    ("samples", "Samples"),
    ("augmented", "Augmented"),
)


@dataclass(frozen=True)
class Content:
    """What the page shows.

    Args:
        title: name of the data set.
        folder: where it lies.
        names: category id -> name.
        attribute_names: attribute id -> name, as far as they are known.
        statistics: the numbers.
        categories_per_image: int (I,).
        augment: how training images are varied.
        augment_name: its name in the config.
        cards: images with their masks.
        draws: augmented images.
    """

    title: str
    folder: str
    names: Mapping[int, str]
    attribute_names: Mapping[int, str]
    statistics: Statistics
    categories_per_image: np.ndarray
    augment: Augment
    augment_name: str
    cards: Sequence[Card]
    draws: Sequence[Draws]


def write_page(path: Path, content: Content) -> None:
    """Write the page; readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as stream:
        stream.write(render(content).encode(errors="replace"))


def render(content: Content) -> str:
    """The page as HTML."""
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in _SECTIONS)
    hashed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    # Should a name ever slip through unescaped, the browser still runs no script but the one below.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    body = "".join(
        (
            classes_section(content.statistics),
            attributes_section(content.statistics, content.names, content.attribute_names),
            _sizes(content),
            together_section(content.statistics, content.names),
            _samples(content),
            _draws(content),
        )
    )
    title = escape(content.title)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}: data set</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body><header class="in"><h1>{title}</h1><p class="path">{escape(content.folder)}</p></header>
<nav aria-label="Sections"><div class="in">{links}</div></nav>
<main class="in">{_overview(content)}{body}</main>
<footer class="in">Made by fashion-hydra eda.</footer>
<script>{SCRIPT}</script></body></html>
"""


def _overview(content: Content) -> str:
    statistics = content.statistics
    height, width = np.median(statistics.sizes, axis=0)
    tiles = {
        "images": f"{len(statistics.sizes):,}",
        "masks": f"{len(statistics.areas):,}",
        f"of {len(content.names):,} categories occur": f"{len(statistics.categories):,}",
        "full ClassIds, attributes included": f"{statistics.class_ids:,}",
        "masks on an image, mean": f"{len(statistics.areas) / len(statistics.sizes):.1f}",
        "median height × width": f"{height:.0f}×{width:.0f}",
        "faults, left out": f"{sum(statistics.faults.values()):,}",
    }
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items())
    notes = "".join(
        f"<li>{escape(note)}</li>" for note in stand_outs(statistics, content.augment, content.augment_name)
    )
    told = f'<div class="card"><h3>What stands out</h3><ul class="notes">{notes}</ul></div>' if notes else ""
    return f'<div class="tiles">{shown}</div>{told}{faults_card(statistics)}'


def _sizes(content: Content) -> str:
    statistics, name = content.statistics, escape(content.augment_name)
    low, high = content.augment.short_edge
    middle = statistics.training_scale(content.augment, (low + high) / 2)
    portrait = float((statistics.sizes[:, 0] > statistics.sizes[:, 1]).mean())
    limit = TINY / SUBMISSION_SIZE**2
    drawn = f"Lines: the edges that augment={name} scales to."
    if statistics.sizes.max() < low:
        drawn = f"All photos are smaller than augment={name} makes them."
    sizes = f"{drawn} At the middle of its range the median photo is scaled by {np.median(middle):.2f}."
    area = f"Left of {limit * 100:.2g} % a mask comes to fewer than {TINY} pixels of a submission."
    by_scale = "Share of masks that are smaller. Lines: COCO’s small (32²) and large (96²)."
    categories = content.categories_per_image
    cards = (
        ("Masks on an image", "All masks, of any category.", per_image_figure(statistics.per_image, "masks")),
        ("Categories on an image", "Attributes aside.", per_image_figure(categories, "categories")),
        ("Photo sizes", sizes, sizes_figure(statistics, content.augment)),
        ("Aspect ratios", f"{percent(portrait)} of the photos are upright.", aspects_figure(statistics)),
        ("Mask area", area, shares_figure(statistics)),
        ("Object size by scale", by_scale, object_sizes_figure(statistics, content.augment)),
    )
    shown = "".join(f'<div class="card"><h3>{title}</h3><p>{text}</p>{figure}</div>' for title, text, figure in cards)
    return f'<section id="sizes"><h2>Sizes</h2><div class="grid">{shown}</div></section>'


def _samples(content: Content) -> str:
    if not content.cards:
        return '<section id="samples"><h2>Samples</h2><p class="muted">None were asked for.</p></section>'
    cards = "".join(_card(card, content.names) for card in content.cards)
    shown = {category for card in content.cards for category in card.masks}
    text = f"{len(content.cards)} images that show {len(shown)} of {len(content.statistics.categories)} categories."
    return (
        f'<section id="samples"><h2>Samples</h2><p class="muted">{text} Masks are painted in their category’s '
        f'colour, small ones on top.</p><div class="gallery">{cards}</div></section>'
    )


def _card(card: Card, names: Mapping[int, str]) -> str:
    listed = ", ".join(short(names[category]) for category in card.masks) or "no category"
    legend = "".join(
        f"<li>{swatch(category)}{escape(short(names[category]))}{f' × {n}' if n > 1 else ''}</li>"
        for category, n in card.masks.items()
    )
    if card.picture is None:
        shown = f'<p class="fault">{escape(card.fault)}</p>'
    else:
        shown = f'<div class="pair">{_images(card.picture, card.image_id, f"masks of {listed}")}</div>'
    return (
        f'<figure class="card">{shown}<figcaption><b>{escape(card.image_id)}</b> '
        f'<span class="muted">{card.size[0]} × {card.size[1]}, {_masks(sum(card.masks.values()))}</span></figcaption>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _masks(number: int) -> str:
    return f"{number} mask" if number == 1 else f"{number} masks"


def _images(picture: Picture, image_id: str, painted: str) -> str:
    height, width = picture.size
    size = f'width="{width}" height="{height}"'
    return (
        f'<img src="{picture.photo}" {size} alt="{escape(f"photo {image_id}")}">'
        f'<img src="{picture.painted}" {size} alt="{escape(f"photo {image_id} with {painted}")}">'
    )


def _draws(content: Content) -> str:
    if not content.draws:
        return '<section id="augmented"><h2>Augmented samples</h2><p class="muted">None were asked for.</p></section>'
    augment = content.augment
    low, high = augment.short_edge
    transforms = ", ".join(str(t.get("name")) for t in augment.photometric) or "no photometric transform"
    text = (
        f"augment={content.augment_name}: short edge {low} to {high}, long edge at most {augment.long_edge}, flipped "
        f"with probability {augment.flip:g}; {transforms}. Below, some images as training sees them, drawn anew in "
        "every epoch, all reduced by the same factor."
    )
    strips = []
    for drawn in content.draws:
        figures = "".join(
            f'<figure style="--c:{epoch + 1}">'
            f"{_images(picture, drawn.image_id, f'masks, as drawn in epoch {epoch}')}"
            f'<figcaption class="muted">epoch {epoch}: {size[0]} × {size[1]}</figcaption></figure>'
            for epoch, (picture, size) in enumerate(zip(drawn.pictures, drawn.sizes, strict=True))
        )
        told = f'<p class="fault">{escape(drawn.fault)}</p>' if drawn.fault else ""
        widths = [picture.size[1] for picture in drawn.pictures]
        layout = f"grid-template-columns:{' '.join(f'{w}fr' for w in widths)};max-width:{sum(widths) + 60}px"
        strip = f'<div class="strip" tabindex="0"><div class="draws" style="{layout}">{figures}</div></div>'
        strips.append(f'<div class="card"><h3>{escape(drawn.image_id)}</h3>{told}{strip}</div>')
    head = f'<h2>Augmented samples</h2><p class="muted">{escape(text)}</p>'
    return f'<section id="augmented">{head}{"".join(strips)}</section>'
