"""The page of a data set: one HTML file without anything from outside."""

import base64
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from fashion_hydra.data.augment import Augment
from fashion_hydra.report.eda import SMALL, TINY, CategoryRow, Statistics, percent, stand_outs
from fashion_hydra.report.eda_figures import (
    aspects_figure,
    object_sizes_figure,
    per_image_figure,
    shares_figure,
    sizes_figure,
)
from fashion_hydra.report.eda_gallery import Card, Draws, Picture
from fashion_hydra.report.eda_style import SCRIPT, STYLE
from fashion_hydra.report.pictures import colour
from fashion_hydra.submission import SUBMISSION_SIZE

_SHOWN_ATTRIBUTES, _SHOWN_CLASS_IDS = 25, 15
_AREA_DECADES = 5  # of the bars of area shares: 0.001 % to 100 %
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
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_text(render(content), encoding="utf-8", errors="replace")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def render(content: Content) -> str:
    """The page as HTML."""
    links = "".join(f'<a href="#{key}">{name}</a>' for key, name in _SECTIONS)
    hashed = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    # Should a name ever slip through unescaped, the browser still runs no script but the one below.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'"
    body = "".join(
        (
            _classes(content),
            _attributes(content),
            _sizes(content),
            _together(content),
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
        "full ClassIds, with attributes": f"{statistics.class_ids:,}",
        "masks on an image, mean": f"{len(statistics.areas) / len(statistics.sizes):.1f}",
        "median height × width": f"{height:.0f} × {width:.0f}",
        "faults, left out": f"{sum(statistics.faults.values()):,}",
    }
    shown = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for name, value in tiles.items())
    notes = "".join(
        f"<li>{escape(note)}</li>" for note in stand_outs(statistics, content.augment, content.augment_name)
    )
    told = f'<div class="card"><h3>What stands out</h3><ul class="notes">{notes}</ul></div>' if notes else ""
    return f'<div class="tiles">{shown}</div>{told}{_faults(statistics)}'


def _faults(statistics: Statistics) -> str:
    if not statistics.faults:
        return ""
    rows = []
    for kind, number in statistics.faults.items():
        first = statistics.examples[kind]
        line = f", line {first.row:,}" if first.row else ""
        rows.append(
            f'<tr><th scope="row">{escape(kind)}</th><td class="n">{number:,}</td><td>{escape(first.action)}</td>'
            f"<td>{escape(first.image_id)}{line}: {escape(first.value)}</td></tr>"
        )
    heads = '<th scope="col">fault</th><th scope="col" class="n">times</th><th scope="col">done</th>'
    return (
        '<div class="card"><h3>Left out because of faults</h3><div class="scroll" tabindex="0"><table><thead><tr>'
        f'{heads}<th scope="col">first one</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></div>'
    )


def _swatch(category: int) -> str:
    red, green, blue = colour(category)
    return f'<i class="sw" style="background:rgb({red},{green},{blue})"></i>'


def _short(name: str) -> str:
    return name.partition(",")[0]


_COLUMNS = (
    ("id", "n", "Category id"),
    ("category", "", "Category name"),
    ("masks", "n", "Masks, and their share of all masks"),
    ("images", "n", "Images with at least one, and their share of all images"),
    ("masks on an image", "n", "Masks on an image that has any"),
    ("area share: median, 10 to 90 %", "", "A mask's share of its image; the bar is logarithmic from 0.001 % to 100 %"),
    ("small (< 32²)", "n", f"Share of masks below {SMALL} pixels on the photo"),
    (f"< {TINY} px at {SUBMISSION_SIZE}²", "n", f"Share of masks below {TINY} pixels on the submission's grid"),
    ("with attributes", "n", "Share of masks that carry attributes"),
    ("ClassIds", "n", "Distinct ClassIds, attributes included"),
)


def _classes(content: Content) -> str:
    statistics = content.statistics
    heads = "".join(
        f'<th scope="col" class="{kind}" aria-sort="{"descending" if text == "masks" else "none"}">'
        f'<button type="button" title="{escape(title)}">{escape(text)}</button></th>'
        for text, kind, title in _COLUMNS
    )
    rows = "".join(_class_row(row, statistics) for row in statistics.categories)
    absent = ", ".join(f"{escape(_short(name))} ({key})" for key, name in statistics.absent.items())
    missing = f'<p class="muted">Without a mask: {absent}.</p>' if absent else ""
    return (
        '<section id="classes"><h2>Classes</h2><p class="muted">Press a heading to sort. Colours are those of the '
        'pictures below.</p><div class="card scroll" tabindex="0" role="region" aria-label="Table of classes">'
        f'<table class="sortable"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>{missing}</section>'
    )


def _class_row(row: CategoryRow, statistics: Statistics) -> str:
    most = max(r.masks for r in statistics.categories)
    images = len(statistics.sizes)
    low, median, high = row.area
    ends = "".join(f"--{key}:{_decades(value):.0f};" for key, value in (("a", low), ("m", median), ("b", high)))
    tip = f"10 %: {percent(low)}, median: {percent(median)}, 90 %: {percent(high)}"
    shares = "".join(
        f'<td class="n h" style="--w:{share * 100:.0f}" data-v="{share:.6f}">{escape(percent(share))}</td>'
        for share in (row.small, row.tiny, row.with_attributes)
    )
    return (
        f'<tr><td class="n">{row.id}</td><th scope="row">{_swatch(row.id)}{escape(row.name)}</th>'
        f'<td class="n w" style="--w:{row.masks / most * 100:.1f}" data-v="{row.masks}">{row.masks:,} '
        f"<small>{escape(percent(row.masks / len(statistics.areas)))}</small></td>"
        f'<td class="n w" style="--w:{row.images / images * 100:.1f}" data-v="{row.images}">{row.images:,} '
        f"<small>{escape(percent(row.images / images))}</small></td>"
        f'<td class="n">{row.masks / row.images:.2f}</td>'
        f'<td class="n" data-v="{median:.8f}">{escape(percent(median))}'
        f'<span class="range" style="{ends}" title="{escape(tip)}"><i></i><b></b></span></td>'
        f'{shares}<td class="n" data-v="{row.class_ids}">{row.class_ids:,}</td></tr>'
    )


def _decades(share: float) -> float:
    """Where a share lies on the logarithmic bar, 0 to 100."""
    return max(0.0, min(100.0, (math.log10(max(share, 1e-12)) + _AREA_DECADES) / _AREA_DECADES * 100))


def _attributes(content: Content) -> str:
    found, total = content.statistics.attributes, len(content.statistics.areas)
    head = '<section id="attributes"><h2>Attributes</h2>'
    if not found.masks:
        return f'{head}<p class="muted">No mask carries attributes: a ClassId is its category alone.</p></section>'
    single = sum(1 for n in found.class_ids.values() if n == 1)
    once = f"{single:,} of the {len(found.class_ids):,} ClassIds with attributes occur on a single mask."
    carried = sum(found.counts.values()) / found.masks
    text = (
        f"{found.masks:,} masks ({percent(found.masks / total)}) carry attributes, {carried:.1f} on average; "
        f"{len(found.counts):,} different ones occur. {once}"
    )
    attributes = [
        (f"{content.attribute_names.get(key, 'attribute')} ({key})", n)
        for key, n in list(found.counts.items())[:_SHOWN_ATTRIBUTES]
    ]
    class_ids = [
        (_class_id_text(class_id, content), n) for class_id, n in list(found.class_ids.items())[:_SHOWN_CLASS_IDS]
    ]
    return (
        f'{head}<p class="muted">{escape(text)}</p><div class="two">'
        f"{_ranking('Most frequent attributes', 'attribute', attributes, found.masks)}"
        f"{_ranking('Most frequent ClassIds with attributes', 'ClassId', class_ids, found.masks)}</div></section>"
    )


def _class_id_text(class_id: str, content: Content) -> str:
    category, *attributes = class_id.split("_")
    named = ", ".join(content.attribute_names.get(int(a), a) for a in attributes)
    return f"{_short(content.names[int(category)])}: {named} ({class_id})"


def _ranking(title: str, what: str, counted: Sequence[tuple[str, int]], masks: int) -> str:
    most = max(n for _, n in counted)
    rows = "".join(
        f'<tr><th scope="row">{escape(text)}</th><td class="n w" style="--w:{n / most * 100:.1f}">{n:,} '
        f"<small>{escape(percent(n / masks))}</small></td></tr>"
        for text, n in counted
    )
    heads = f'<th scope="col">{what}</th><th scope="col" class="n">masks</th>'
    return (
        f'<div class="card"><h3>{title}</h3><p>Shares are of the masks with attributes.</p>'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _sizes(content: Content) -> str:
    statistics, name = content.statistics, escape(content.augment_name)
    low, high = content.augment.short_edge
    middle = statistics.training_scale(content.augment, (low + high) / 2)
    portrait = float((statistics.sizes[:, 0] > statistics.sizes[:, 1]).mean())
    limit = TINY / SUBMISSION_SIZE**2
    scale = f"At the middle of augment={name} the median photo is scaled by {np.median(middle):.2f}."
    sizes = f"Lines: the edges that augment={name} scales to. {scale}"
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


def _together(content: Content) -> str:
    statistics = content.statistics
    ids, together = statistics.together_ids, statistics.together
    names = [_short(content.names[i]) for i in ids]
    heads = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in names)
    rows = []
    for i, name in enumerate(names):
        own = int(together[i, i])
        cells = "".join(
            _heat_cell(int(together[i, j]), own, f"{name} with {names[j]}", same=i == j) for j in range(len(ids))
        )
        rows.append(f'<tr><th scope="row" title="{escape(name)}">{escape(name)}</th>{cells}</tr>')
    left_out = len(statistics.categories) - len(ids)
    more = f" The {left_out} rarest categories are left out." if left_out else ""
    return (
        '<section id="together"><h2>Together on an image</h2><p class="muted">Of the images with the row’s category, '
        f"how many percent also have the column’s.{more}</p>"
        '<div class="card scroll heat" tabindex="0" role="region" aria-label="Table of categories together">'
        f"<table><thead><tr><th></th>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _heat_cell(both: int, own: int, text: str, *, same: bool) -> str:
    if same:
        return '<td class="s"></td>'
    if not both:
        return '<td style="--p:0"></td>'
    share = round(both / own * 100)
    dark = ' class="d"' if share >= 60 else ""
    return f'<td{dark} style="--p:{share}" title="{escape(text)}: {both:,} of {own:,} images">{share}</td>'


def _samples(content: Content) -> str:
    cards = "".join(_card(card, content.names) for card in content.cards)
    shown = {category for card in content.cards for category in card.masks}
    text = f"{len(content.cards)} images that show {len(shown)} of {len(content.statistics.categories)} categories."
    return (
        f'<section id="samples"><h2>Samples</h2><p class="muted">{text} Masks are painted in their category’s '
        f'colour, small ones on top.</p><div class="gallery">{cards}</div></section>'
    )


def _card(card: Card, names: Mapping[int, str]) -> str:
    listed = ", ".join(_short(names[category]) for category in card.masks) or "no category"
    legend = "".join(
        f"<li>{_swatch(category)}{escape(_short(names[category]))}{f' × {n}' if n > 1 else ''}</li>"
        for category, n in card.masks.items()
    )
    if card.picture is None:
        shown = f'<p class="fault">{escape(card.fault)}</p>'
    else:
        shown = f'<div class="pair">{_images(card.picture, card.image_id, f"masks of {listed}")}</div>'
    return (
        f'<figure class="card">{shown}<figcaption><b>{escape(card.image_id)}</b> '
        f'<span class="muted">{card.size[0]} × {card.size[1]}, {sum(card.masks.values())} masks</span></figcaption>'
        f'<ul class="legend">{legend}</ul></figure>'
    )


def _images(picture: Picture, image_id: str, painted: str) -> str:
    height, width = picture.size
    size = f'width="{width}" height="{height}"'
    return (
        f'<img src="{picture.photo}" {size} alt="{escape(f"photo {image_id}")}">'
        f'<img src="{picture.painted}" {size} alt="{escape(f"photo {image_id} with {painted}")}">'
    )


def _draws(content: Content) -> str:
    augment = content.augment
    low, high = augment.short_edge
    transforms = ", ".join(str(t.get("name")) for t in augment.photometric) or "no photometric transform"
    text = (
        f"augment={content.augment_name}: short edge {low} to {high}, long edge at most {augment.long_edge}, flipped "
        f"with probability {augment.flip:g}; {transforms}. Below, what training sees in its first epochs, all "
        "reduced by the same factor."
    )
    strips = []
    for drawn in content.draws:
        figures = "".join(
            f'<figure style="width:{picture.size[1]}px">'
            f"{_images(picture, drawn.image_id, f'masks, as drawn in epoch {epoch}')}"
            f'<figcaption class="muted">epoch {epoch}: {size[0]} × {size[1]}</figcaption></figure>'
            for epoch, (picture, size) in enumerate(zip(drawn.pictures, drawn.sizes, strict=True))
        )
        told = f'<p class="fault">{escape(drawn.fault)}</p>' if drawn.fault else ""
        strip = f'<div class="strip" tabindex="0">{figures}</div>'
        strips.append(f'<div class="card"><h3>{escape(drawn.image_id)}</h3>{told}{strip}</div>')
    head = f'<h2>Augmented samples</h2><p class="muted">{escape(text)}</p>'
    return f'<section id="augmented">{head}{"".join(strips)}</section>'
