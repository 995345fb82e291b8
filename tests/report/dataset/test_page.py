"""`fashion-hydra eda`: compare numbers with counts by hand and from decoded masks, and parse the page."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.data.augment import Augment, source_index
from fashion_hydra.data.kaggle import read_annotations
from fashion_hydra.report.dataset.gallery import _reduced, choose_images, draw_augmented, draw_cards
from fashion_hydra.report.dataset.statistics import count, percent, stand_outs
from fashion_hydra.report.svg import Axis, counting_axis, decimal_axis, log_axis
from fashion_hydra.structures import rle

AUGMENT = Augment(short_edge=[48, 64], long_edge=128)
VOID = {"meta", "link", "img", "br"}


def row(image, pixels, size, class_id):
    return {"ImageId": image, "EncodedPixels": pixels, "Height": size[0], "Width": size[1], "ClassId": class_id}


@pytest.fixture
def by_hand(kaggle_folder):
    """A data set with two valid images and four masks, and a row with an unknown class."""
    a, b = (100, 80), (600, 600)
    rows = [
        row("a.jpg", "1 2000", a, "1"),  # a quarter of 8000 pixels
        row("a.jpg", "2001 80", a, "2_5_7"),  # a hundredth; small
        row("b.jpg", "1 9", b, "1"),  # small, and 6.6 pixels at 512 x 512
        row("b.jpg", "3601 3600", b, "2_5"),  # a hundredth of 360000 pixels
        row("b.jpg", "1 2", b, "46"),
    ]
    return kaggle_folder(rows, {"a.jpg": a, "b.jpg": b})


class Page(HTMLParser):
    """A parser that checks the nesting of elements and collects what the tests need."""

    def __init__(self, text):
        super().__init__()
        self.open, self.references, self.images, self.ids, self.text = [], [], [], [], []
        self.counts = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert len(given) == len(attrs), (tag, attrs)
        self.counts[tag] = self.counts.get(tag, 0) + 1
        self.references += [value for name, value in attrs if name in ("src", "href")]
        if tag == "img":
            self.images.append(given)
        if "id" in given:
            self.ids.append(given["id"])
        if tag not in VOID and not self.get_starttag_text().endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.open, tag  # a slash closes only SVG elements

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def make(folder, out, *options):
    assert main(["eda", str(folder), "--out", str(out), "--augment", "small", *options]) == 0
    return out.read_text(encoding="utf-8")


def test_numbers_counted_by_hand(by_hand):
    statistics = count(*read_annotations(by_hand))
    assert statistics.sizes.tolist() == [[100, 80], [600, 600]]
    assert statistics.per_image.tolist() == [2, 2]
    assert statistics.areas.tolist() == [2000, 80, 9, 3600]
    assert statistics.shares.tolist() == pytest.approx([0.25, 0.01, 9 / 360000, 0.01])
    assert [(c.id, c.name, c.masks, c.images) for c in statistics.categories] == [
        (1, "category 1", 2, 2),
        (2, "category 2", 2, 2),
    ]
    one, two = statistics.categories
    assert (one.small, one.tiny, one.with_attributes, one.class_ids) == (0.5, 0.5, 0, 1)
    assert (two.small, two.tiny, two.with_attributes, two.class_ids) == (0.5, 0, 1, 2)
    assert one.area[1] == pytest.approx((0.25 + 9 / 360000) / 2)
    assert two.area == pytest.approx((0.01, 0.01, 0.01))
    assert statistics.class_ids == 3
    assert statistics.attributes.masks == 2
    assert list(statistics.attributes.counts.items()) == [(5, 2), (7, 1)]
    assert list(statistics.attributes.class_ids.items()) == [("2_5", 1), ("2_5_7", 1)]
    assert statistics.together_ids == [1, 2]
    assert statistics.together.tolist() == [[2, 2], [2, 2]]
    assert len(statistics.absent) == 44
    assert statistics.faults == {"unknown-class": 1}
    assert statistics.examples["unknown-class"].place == "row 6"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_numbers_of_decoded_masks(wardrobe):
    annotations, faults = read_annotations(wardrobe)
    statistics = count(annotations, faults)
    small, present = {}, np.zeros((len(annotations), 46), dtype=int)
    for image in range(len(annotations)):
        height, width = annotations.sizes[image].tolist()
        for mask in annotations.instances(image):
            encoded = rle.runs_to_coco(annotations.runs_of(mask), height=height, width=width)
            area = int(coco_mask.decode(encoded).sum())
            category = int(annotations.categories[mask])
            assert statistics.owners[mask] == image
            assert statistics.areas[mask] == area
            assert statistics.shares[mask] == pytest.approx(area / (height * width))
            small.setdefault(category, []).append(area < 1024)
            present[image, category] = 1
    assert {c.id: c.masks for c in statistics.categories} == {c: len(v) for c, v in small.items()}
    assert {c.id: c.small for c in statistics.categories} == pytest.approx({c: np.mean(v) for c, v in small.items()})
    ids = list(statistics.together_ids)
    assert (statistics.together == (present.T @ present)[np.ix_(ids, ids)]).all()
    assert {c.id: c.images for c in statistics.categories} == {c: present[:, c].sum() for c in small}


def test_training_scale_obeys_both_edges(by_hand):
    statistics = count(*read_annotations(by_hand))
    augment = Augment(short_edge=[48, 64], long_edge=75)
    assert statistics.training_scale(augment, 64).tolist() == pytest.approx([0.75, 64 / 600])


def test_what_stands_out(by_hand):
    told = " ".join(stand_outs(count(*read_annotations(by_hand)), AUGMENT, "small"))
    assert "44 of 46 described categories have no masks" in told
    assert "category 2 carry attributes" in told
    assert "50 % of the masks are small" in told
    assert "25 % cover fewer than 20 pixels" in told
    assert "augment=small always shrinks 100 % of the photos" in told


def test_the_page_is_one_well_formed_file(wardrobe, tmp_path):
    text = make(wardrobe, tmp_path / "new" / "eda.html", "--samples", "3")
    page = Page(text)
    inside = [r for r in page.references if r.startswith("#")]
    assert {r[1:] for r in inside} == set(page.ids)
    assert all(r.startswith("data:") for r in page.references if r not in inside)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert len(page.images) == 3 * 2 + 3 * 4 * 2
    assert all(image["alt"] and image["src"].startswith("data:image/jpeg;base64,") for image in page.images)
    assert page.counts["svg"] == 6
    assert page.counts["table"] >= 3
    assert not re.search(r"\b(nan|inf)\b", text.partition("<main")[2].partition("<img")[0])
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["eda.html"]


def test_names_are_text(by_hand, tmp_path):
    bad = '<script>alert("1")</script>'
    labels = json.loads((by_hand / "label_descriptions.json").read_text())
    labels["categories"][1]["name"] = labels["categories"][3]["name"] = bad
    labels["attributes"] = [{"id": i, "name": bad} for i in (5, 7)]
    (by_hand / "label_descriptions.json").write_text(json.dumps(labels))
    folder = by_hand.rename(by_hand.with_name("<b>&amp;"))
    text = make(folder, tmp_path / "eda.html", "--samples", "2")
    page = Page(text)
    assert page.counts["script"] == 1
    assert page.counts.get("b", 0) == text.count("<b>")
    assert bad not in text
    assert bad in page.text
    assert "<b>&amp;" in page.text


def test_the_same_seed_gives_the_same_bytes(wardrobe, tmp_path):
    pages = [make(wardrobe, tmp_path / f"{i}.html", "--samples", "2", "--seed", seed) for i, seed in enumerate("776")]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_images_are_chosen_to_show_every_category():
    rng = np.random.default_rng(3)
    table = (rng.random((200, 12)) < 0.05).astype(np.uint8)
    table[:, 0] = 0
    for seed in range(5):
        chosen = choose_images(table, 20, seed)
        assert len(set(chosen)) == len(chosen) == 20
        assert (table[chosen].any(axis=0) == table.any(axis=0)).all()
        assert chosen == choose_images(table, 20, seed)
    assert len({tuple(choose_images(table, 20, seed)) for seed in range(5)}) == 5
    assert sorted(choose_images(table[:7], 20, 0)) == list(range(7))
    assert choose_images(table, 0, 0) == []


def test_a_reduced_mask_is_the_whole_one_reduced():
    rng = np.random.default_rng(0)
    whole = np.zeros((37, 53), dtype=np.uint8)
    whole[5:31, 11:47] = rng.random((26, 36)) < 0.5
    rows, columns = source_index(37, 13), source_index(53, 20)
    got = _reduced(whole[5:31, 11:47], (11, 5, 47, 31), rows, columns)
    assert (got == whole[np.ix_(rows, columns)]).all()


def test_an_image_that_is_gone_leaves_its_reason(wardrobe, tmp_path):
    annotations, _ = read_annotations(wardrobe)
    annotations = dataclasses.replace(annotations, folder=tmp_path, source=None)
    (card,) = draw_cards(annotations, [0])
    assert card.picture is None
    assert str(annotations.files[0]) in card.fault
    (drawn,) = draw_augmented(annotations, [0], AUGMENT, draws=2, seed=0)
    assert str(annotations.files[0]) in drawn.fault


def test_images_without_masks_have_a_page(kaggle_folder, tmp_path):
    size = (40, 30)
    folder = kaggle_folder([row("a.jpg", "", size, "1"), row("b.jpg", "", size, "")], {"a.jpg": size, "b.jpg": size})
    for samples in ("2", "0"):
        page = Page(make(folder, tmp_path / "eda.html", "--samples", samples))
        assert any("2 images have no masks" in text for text in page.text)
        assert len(page.images) == int(samples) * (2 + 4 * 2)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--samples", "-1"], "--samples -1"),
        (["--seed", "-1"], "--seed -1"),
        (["--augment", "../schedule/demo"], "give one of laptop, small, winner"),
    ],
)
def test_mistakes_are_told_in_one_line(wardrobe, tmp_path, monkeypatch, capsys, options, told):
    monkeypatch.chdir(tmp_path)
    assert main(["eda", str(wardrobe), *options]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.0995, "10 %"),
        (0.0994, "9.9 %"),
        (0.123, "12 %"),
        (0.003, "0.3 %"),
        (2e-5, "0.002 %"),
        (1e-9, "< 0.001 %"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text


@pytest.mark.parametrize("largest", [0, 1, 2, 3, 7, 11, 58, 99, 100, 128, 1234, 45600, 333000])
def test_axes_have_round_whole_ticks(largest):
    axis = counting_axis("", largest)
    assert axis.high >= largest
    assert 2 <= len(axis.ticks) <= 6
    assert all(value.is_integer() and text == f"{value:,.0f}" for value, text in axis.ticks)


def test_places_on_axes():
    assert Axis("", 0, 4, []).position(np.array([-1, 0, 1, 9])).tolist() == [0, 0, 0.25, 1]
    axis = log_axis("", 1e-2, 1, shares=True)
    assert axis.ticks == [(0.01, "1 %"), (0.1, "10 %"), (1.0, "100 %")]
    assert axis.position(np.array([0, 0.1])).tolist() == pytest.approx([0, 0.5])


@pytest.mark.parametrize(
    ("low", "high", "ends"),
    [(0, 0.2141, (0, 0.3)), (0, 0.2, (0, 0.2)), (0, 6.25, (0, 8)), (0, 0, (0, 2.5e-10)), (-0.013, 0.31, (-0.1, 0.4))],
)
def test_decimal_axes_end_on_round_ticks(low, high, ends):
    axis = decimal_axis("", low, high)
    assert (axis.low, axis.high) == pytest.approx(ends)
    assert [float(text) for _, text in axis.ticks] == pytest.approx([value for value, _ in axis.ticks])
    assert 2 <= len(axis.ticks) <= 7
