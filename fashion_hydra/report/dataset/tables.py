"""The page's tables: classes, attributes, what occurs together, faults."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from fashion_hydra.formats.submission import SUBMISSION_SIZE
from fashion_hydra.plots.painted_masks import colour
from fashion_hydra.report.dataset.statistics import SMALL, TINY, CategoryRow, Statistics, percent

_SHOWN_ATTRIBUTES, _SHOWN_CLASS_IDS = 25, 12
_AREA_DECADES = 5  # of the bars of area shares: 0.001 % to 100 %
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


def swatch(category: int) -> str:
    """A category's colour as a small square."""
    red, green, blue = colour(category)
    return f'<i class="sw" style="background:rgb({red},{green},{blue})"></i>'


def short(name: str) -> str:
    """A category's name up to its first comma."""
    return name.partition(",")[0]


def faults_card(statistics: Statistics) -> str:
    """Kinds of faults, how many, and the first of each; nothing where there are none."""
    if not statistics.faults:
        return ""
    rows = []
    for kind, number in statistics.faults.items():
        first = statistics.examples[kind]
        row = f", row {first.row}" if first.row else ""
        rows.append(
            f'<tr><th scope="row">{escape(kind)}</th><td class="n">{number:,}</td><td>{escape(first.action)}</td>'
            f"<td>{escape(first.image_id)}{row}: {escape(first.value)}</td></tr>"
        )
    heads = '<th scope="col">fault</th><th scope="col" class="n">times</th><th scope="col">done</th>'
    return (
        '<div class="card"><h3>Left out because of faults</h3><div class="scroll" tabindex="0"><table><thead><tr>'
        f'{heads}<th scope="col">first one</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></div>'
    )


def classes_section(statistics: Statistics) -> str:
    """The categories that occur, sortable; the others by name."""
    heads = "".join(
        f'<th scope="col" class="{kind}" aria-sort="{"descending" if text == "masks" else "none"}">'
        f'<button type="button" title="{escape(title)}">{escape(text)}</button></th>'
        for text, kind, title in (_COLUMNS if statistics.attributes.masks else _COLUMNS[:-2])
    )
    rows = "".join(_class_row(row, statistics) for row in statistics.categories)
    absent = ", ".join(f"{escape(short(name))} ({key})" for key, name in statistics.absent.items())
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
        for share in (row.small, row.tiny, row.with_attributes)[: 3 if statistics.attributes.masks else 2]
    )
    distinct = f'<td class="n" data-v="{row.class_ids}">{row.class_ids:,}</td>' if statistics.attributes.masks else ""
    return (
        f'<tr><td class="n">{row.id}</td><th scope="row">{swatch(row.id)}{escape(row.name)}</th>'
        f'<td class="n w" style="--w:{row.masks / most * 100:.1f}" data-v="{row.masks}">{row.masks:,} '
        f"<small>{escape(percent(row.masks / len(statistics.areas)))}</small></td>"
        f'<td class="n w" style="--w:{row.images / images * 100:.1f}" data-v="{row.images}">{row.images:,} '
        f"<small>{escape(percent(row.images / images))}</small></td>"
        f'<td class="n">{row.masks / row.images:.2f}</td>'
        f'<td class="n" data-v="{median:.8f}">{escape(percent(median))}'
        f'<span class="range" style="{ends}" title="{escape(tip)}"><i></i><b></b></span></td>'
        f"{shares}{distinct}</tr>"
    )


def _decades(share: float) -> float:
    """Where a share lies on the logarithmic bar, 0 to 100."""
    return max(0.0, min(100.0, (math.log10(max(share, 1e-12)) + _AREA_DECADES) / _AREA_DECADES * 100))


def attributes_section(statistics: Statistics, names: Mapping[int, str], attribute_names: Mapping[int, str]) -> str:
    """The most frequent attributes and ClassIds.

    Args:
        statistics: of the data set.
        names: category id -> name.
        attribute_names: attribute id -> name, as far as they are known.
    """
    found, total = statistics.attributes, len(statistics.areas)
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
        (f"{attribute_names.get(key, 'attribute')} ({key})", n)
        for key, n in list(found.counts.items())[:_SHOWN_ATTRIBUTES]
    ]
    class_ids = [
        (_class_id_text(class_id, names, attribute_names), n)
        for class_id, n in list(found.class_ids.items())[:_SHOWN_CLASS_IDS]
    ]
    return (
        f'{head}<p class="muted">{escape(text)}</p><div class="two">'
        f"{_ranking('Most frequent attributes', 'attribute', attributes, found.masks)}"
        f"{_ranking('Most frequent ClassIds with attributes', 'ClassId', class_ids, found.masks)}</div></section>"
    )


def _class_id_text(class_id: str, names: Mapping[int, str], attribute_names: Mapping[int, str]) -> str:
    category, *attributes = class_id.split("_")
    named = ", ".join(attribute_names.get(int(a), a) for a in attributes)
    return f"{short(names[int(category)])}: {named} ({class_id})"


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


def together_section(statistics: Statistics, names: Mapping[int, str]) -> str:
    """Which share of a category's images has each other category.

    Args:
        statistics: of the data set.
        names: category id -> name.
    """
    ids, together = statistics.together_ids, statistics.together
    shorts = [short(names[i]) for i in ids]
    heads = "".join(f'<th scope="col" title="{escape(name)}"><span>{escape(name)}</span></th>' for name in shorts)
    rows = []
    for i, name in enumerate(shorts):
        own = int(together[i, i])
        cells = "".join(
            _heat_cell(int(together[i, j]), own, f"{name} with {shorts[j]}", same=i == j) for j in range(len(ids))
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
