"""The wardrobe data set: its files, their reproducibility, and the consistency of its truth."""

import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.data.imaterialist import ATTRIBUTES, CATEGORIES, attribute_id, category_id, label_descriptions
from fashion_hydra.utils.errors import UserError
from fashion_hydra.wardrobe import write_wardrobe
from fashion_hydra.wardrobe.canvas import Camera, Canvas, Light
from fashion_hydra.wardrobe.sheet import contact_sheet
from fashion_hydra.wardrobe.writer import draw_image
from tests import SHARED

TRAIN, TEST, SIZE, SEED = 14, 4, 128, 3


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def decode(encoded: str, height: int, width: int) -> np.ndarray:
    """Decode Kaggle's encoding to a bitmap with pycocotools (uncompressed counts, column-major)."""
    values = np.array(encoded.split(), dtype=np.int64).reshape(-1, 2)
    counts, end = [], 0
    for start, length in values.tolist():
        counts += [start - 1 - end, length]
        end = start - 1 + length
    counts.append(height * width - end)
    assert min(counts[1:]) >= 0
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return coco_mask.decode(rle).astype(bool)


@pytest.fixture(scope="module")
def wardrobe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wardrobe") / "data"
    write_wardrobe(folder, train=TRAIN, test=TEST, size=SIZE, seed=SEED)
    return folder


def test_layout_is_kaggles(wardrobe: Path) -> None:
    names = {p.name for p in wardrobe.iterdir()}
    tables = {
        "train.csv",
        "test_truth.csv",
        "sample_submission.csv",
        "label_descriptions.json",
        "wardrobe.json",
    }
    assert names == {"train", "test", *tables}
    assert [p.name for p in wardrobe.parent.iterdir()] == ["data"]  # no temporary files remain
    header = (wardrobe / "train.csv").read_text().splitlines()[0]
    assert header == "ImageId,EncodedPixels,Height,Width,ClassId"
    assert (wardrobe / "test_truth.csv").read_text().splitlines()[0] == header
    for split, table, count in (("train", "train.csv", TRAIN), ("test", "test_truth.csv", TEST)):
        images = {p.name for p in (wardrobe / split).iterdir()}
        assert len(images) == count
        assert images == {row["ImageId"] for row in rows_of(wardrobe / table)}
        assert all(re.fullmatch(r"[0-9a-f]{32}\.jpg", name) for name in images)


def test_sample_submission_has_one_empty_row_per_test_image(wardrobe: Path) -> None:
    rows = rows_of(wardrobe / "sample_submission.csv")
    assert list(rows[0]) == ["ImageId", "EncodedPixels", "ClassId"]
    assert sorted(r["ImageId"] for r in rows) == sorted(p.name for p in (wardrobe / "test").iterdir())
    assert {(r["EncodedPixels"], r["ClassId"]) for r in rows} == {("", "23")}


def test_masks_decode_inside_their_images(wardrobe: Path) -> None:
    for split, table in (("train", "train.csv"), ("test", "test_truth.csv")):
        for row in rows_of(wardrobe / table):
            with Image.open(wardrobe / split / row["ImageId"]) as image:
                width, height = image.size
            assert max(width, height) == SIZE
            mask = decode(row["EncodedPixels"], height, width)
            assert 12 <= mask.sum() < 0.9 * height * width
            x, y, w, h = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
            assert x >= 0 and y >= 0 and x + w <= width and y + h <= height


def test_sizes_agree_but_for_two_swapped_training_images(wardrobe: Path) -> None:
    wrong: dict[str, set[str]] = {"train": set(), "test": set()}
    for split, table in (("train", "train.csv"), ("test", "test_truth.csv")):
        for row in rows_of(wardrobe / table):
            with Image.open(wardrobe / split / row["ImageId"]) as image:
                size = image.size
            stated = (int(row["Width"]), int(row["Height"]))
            if stated != size:
                assert stated == size[::-1]
                wrong[split].add(row["ImageId"])
    assert len(wrong["train"]) == 2
    assert not wrong["test"]


def test_attributes_only_on_garments_and_ascending(wardrobe: Path) -> None:
    with_attributes = 0
    for row in rows_of(wardrobe / "train.csv"):
        category, *attributes = (int(part) for part in row["ClassId"].split("_"))
        assert 0 <= category < len(CATEGORIES)
        assert attributes == sorted(set(attributes))
        assert all(0 <= a < len(ATTRIBUTES) for a in attributes)
        assert category <= 12 or not attributes
        with_attributes += bool(attributes)
    assert with_attributes


def test_parts_lie_on_garments(wardrobe: Path) -> None:
    """Every pixel of a sleeve, pocket, collar ... also belongs to a garment."""
    parts = {category_id(n) for n in ("hood", "collar", "lapel", "sleeve", "pocket", "neckline", "zipper")}
    by_image: dict[str, list[dict[str, str]]] = {}
    for row in rows_of(wardrobe / "test_truth.csv"):
        by_image.setdefault(row["ImageId"], []).append(row)
    for rows in by_image.values():
        size = int(rows[0]["Height"]), int(rows[0]["Width"])
        masks = [(int(r["ClassId"].split("_")[0]), decode(r["EncodedPixels"], *size)) for r in rows]
        garments = np.any([m for c, m in masks if c <= 12], axis=0)
        for category, mask in masks:
            if category in parts:
                # Each mask is thresholded separately when the picture is reduced, so borders may differ.
                assert (mask & ~garments).sum() <= 0.1 * mask.sum() + 2


def test_a_zip_shows_on_most_skirts_and_a_lining_tells_open_coats_from_closed() -> None:
    """Attributes can be learnt only where the picture shows them."""
    skirts = {attribute_id("zip-up")}
    shown = total = coats = 0
    for index in range(60):
        picture = draw_image(seed=SEED, split="test", index=index, size=SIZE)
        zips = [t.mask for t in picture.truth if t.category == category_id("zipper")]
        for truth in picture.truth:
            if truth.category == category_id("skirt") and skirts & set(truth.attributes):
                total += 1
                shown += any((z & truth.mask).any() for z in zips)
            if truth.category == category_id("coat") and truth.attributes:
                coats += 1
                closed = attribute_id("double breasted") in truth.attributes
                assert closed != (attribute_id("lining") in truth.attributes)
    assert coats
    assert shown >= 0.6 * total > 0


def test_same_seed_same_bytes_and_a_larger_wardrobe_extends_a_smaller(wardrobe: Path, tmp_path: Path) -> None:
    write_wardrobe(tmp_path / "small", train=8, test=2, size=SIZE, seed=SEED)
    small, large = digests(tmp_path / "small"), digests(wardrobe)
    jpegs = {name for name in small if name.endswith(".jpg")}
    assert len(jpegs) == 10
    assert all(small[name] == large[name] for name in jpegs)
    rows = (wardrobe / "train.csv").read_text()
    assert rows.startswith((tmp_path / "small" / "train.csv").read_text())


def test_two_processes_draw_what_one_draws(tmp_path: Path) -> None:
    """Above a certain number of images, a pool of processes draws them."""
    write_wardrobe(tmp_path / "pool", train=23, test=1, size=96, seed=1)
    write_wardrobe(tmp_path / "alone", train=8, test=1, size=96, seed=1)
    pool, alone = digests(tmp_path / "pool"), digests(tmp_path / "alone")
    assert all(pool[name] == alone[name] for name in alone if name.endswith(".jpg"))


def test_another_seed_draws_other_images() -> None:
    a = draw_image(seed=0, split="train", index=0, size=96).rgb
    b = draw_image(seed=1, split="train", index=0, size=96).rgb
    c = draw_image(seed=0, split="test", index=0, size=96).rgb
    assert a.shape != b.shape or not np.array_equal(a, b)
    assert a.shape != c.shape or not np.array_equal(a, c)


def test_an_identical_wardrobe_is_left_alone(wardrobe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = digests(wardrobe)
    arguments = ["wardrobe", str(wardrobe), "--train", str(TRAIN), "--test", str(TEST), "--size", str(SIZE)]
    assert main([*arguments, "--seed", str(SEED)]) == 0
    assert "already there" in capsys.readouterr().out
    assert digests(wardrobe) == before


def test_other_contents_are_refused(wardrobe: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"seed {SEED} instead of 99"):
        write_wardrobe(wardrobe, train=TRAIN, test=TEST, size=SIZE, seed=99)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="not empty"):
        write_wardrobe(tmp_path, train=TRAIN, test=TEST, size=SIZE, seed=0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="is a file"):
        write_wardrobe(tmp_path / "mine.txt", train=TRAIN, test=TEST, size=SIZE, seed=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train": 3}, "--train 3"),
        ({"test": 0}, "--test 0"),
        ({"size": 40}, "--size 40"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path: Path, changed: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_wardrobe(tmp_path / "w", **({"train": 8, "test": 1, "size": 96, "seed": 0} | changed))
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("fashion_hydra.wardrobe.writer._write_tables", fail)
    with pytest.raises(OSError, match="disk full"):
        write_wardrobe(tmp_path / "w", train=8, test=1, size=96, seed=0)
    assert not list(tmp_path.iterdir())


def test_command_prints_counts_and_the_next_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sheet = tmp_path / "w", tmp_path / "sheet.png"
    assert main(["wardrobe", str(folder), "--train", "8", "--test", "1", "--size", "96", "--sheet", str(sheet)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "8 train images" in lines[0] and "1 test images" in lines[0]
    assert lines[-1] == f"next: python train.py experiment=demo data.root={folder}"
    with Image.open(sheet) as image:
        assert image.width == 1200


def test_painting_over_hides_and_parts_share() -> None:
    canvas = Canvas(np.zeros((40, 40, 3)), Light(0.0, -0.6, 0.5, (1.0, 1.0, 1.0)))
    canvas.camera = Camera(1.0, (0.0, 0.0))
    square = np.array([(5, 5), (35, 5), (35, 35), (5, 35)])
    garment, part, arm = canvas.add(4), canvas.add(31), canvas.add(24)
    canvas.fill(square, (1.0, 0.0, 0.0), (garment,))
    canvas.fill(square * 0.5, (0.0, 1.0, 0.0), (garment, part), clip=garment)
    full = canvas.mask(garment)
    assert (canvas.mask(part) <= full).all()
    assert 0 < canvas.mask(part).sum() < full.sum()
    canvas.fill(square + np.array([10, 10]), (0.0, 0.0, 1.0), (arm,))
    assert not (canvas.mask(arm) & canvas.mask(garment)).any()
    assert canvas.mask(garment).sum() < full.sum()


def test_contact_sheet_is_as_wide_as_asked() -> None:
    pictures = [draw_image(seed=0, split="train", index=i, size=96) for i in range(3)]
    assert contact_sheet(pictures, width=600, columns=2).width == 600


def test_labels_count_and_ids() -> None:
    descriptions = label_descriptions()
    assert [c["id"] for c in descriptions["categories"]] == list(range(46))
    assert [a["id"] for a in descriptions["attributes"]] == list(range(92))
    assert json.dumps(descriptions)
    assert (category_id("dress"), category_id("zipper"), category_id("tassel")) == (10, 35, 45)
    assert (attribute_id("zip-up"), attribute_id("leopard"), attribute_id("no waistline")) == (14, 77, 91)


def test_labels_are_the_competitions() -> None:
    path = SHARED / "label_descriptions_2019.json"
    if not path.is_file():
        pytest.skip("the competition's label_descriptions.json is not here")
    theirs, ours = json.loads(path.read_text()), label_descriptions()
    assert ours["categories"] == theirs["categories"]
    assert ours["attributes"] == theirs["attributes"]
