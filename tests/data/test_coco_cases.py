"""COCO data sets as tools and people write them, each with its expected result: synthetic, and real if available."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fashion_hydra.cli.main import main
from fashion_hydra.config.places import PROJECT_ROOT
from fashion_hydra.data.annotation_cache import UnusableData, load_annotations
from fashion_hydra.data.coco import CocoReader
from fashion_hydra.data.coco_export import write_coco
from fashion_hydra.data.kaggle import KaggleReader, read_annotations
from fashion_hydra.utils.errors import UserError

CASES = PROJECT_ROOT.parent / "shared" / "cases"
SIZE = (48, 64)
SQUARE = [[3, 3, 12, 3, 12, 12, 3, 12]]  # 81 pixels
real = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not at hand")


def encoded_square():
    return coco_mask.merge(coco_mask.frPyObjects(SQUARE, *SIZE))["counts"]


def picture(path, shade=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), shade, np.uint8)).save(path)


def annotation(number=1, image=1, category=1, segmentation=SQUARE, **more):
    box = {"bbox": [3, 3, 9, 9], "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **box, **more}


def write(path, images, annotations, categories=((1, "shirt"), (2, "shoe"))):
    """Write a COCO file; images are names or complete entries."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = SIZE
    entries = [
        {"id": i, "file_name": image, "width": width, "height": height} if isinstance(image, str) else image
        for i, image in enumerate(images, 1)
    ]
    listed = [{"id": number, "name": name} for number, name in categories]
    path.write_text(json.dumps({"images": entries, "annotations": annotations, "categories": listed}))
    return path


def read(root, file, **options):
    return load_annotations(CocoReader(root, str(file), **options))


def kinds(faults):
    return sorted(fault.kind for fault in faults)


def test_images_are_looked_for_beside_the_file_first(tmp_path):
    for part, shade in (("train", 10), ("valid", 200)):
        picture(tmp_path / part / "frame.png", shade)
        write(tmp_path / part / "_annotations.coco.json", ["frame.png"], [annotation()])
    found, faults = read(tmp_path, "valid/_annotations.coco.json")
    assert faults == []
    assert found.folder == tmp_path / "valid"


@pytest.mark.parametrize(
    ("stem", "folder"), [("instances_val2017", "val2017"), ("instances_train2017", "train2017"), ("val", "val2017")]
)
def test_cocos_own_layout(tmp_path, stem, folder):
    for part in ("train2017", "val2017"):
        picture(tmp_path / part / "0001.png")
    write(tmp_path / "annotations" / f"{stem}.json", ["0001.png"], [annotation()])
    if stem == "val":  # "val" is not a complete folder name, so the folder is ambiguous
        with pytest.raises(UserError, match=r"images are in several folders: .*train2017, .*val2017. Choose one with"):
            read(tmp_path, f"annotations/{stem}.json")
        return
    found, _ = read(tmp_path, f"annotations/{stem}.json")
    assert found.folder == tmp_path / folder


@pytest.mark.parametrize("name", ["./images/a.png", "images\\a.png", "images/a.png", "ROOT/images/a.png"])
def test_names_with_folders_in_them(tmp_path, name):
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "a.json", [name.replace("ROOT", str(tmp_path))], [annotation()])
    found, faults = read(tmp_path, "a.json")
    assert faults == []
    assert found.image_ids.tolist() == ["images/a.png"]
    assert found.areas.tolist() == [81]


@pytest.mark.parametrize("name", ["../../upload/1/a.png", "C:\\data\\a.png", "/content/set/a.png", "images/%61.png"])
def test_names_of_another_computer_are_found_by_the_file(tmp_path, name):
    picture(tmp_path / "images" / "a.png")
    write(tmp_path / "a.json", [name], [annotation()])
    found, faults = read(tmp_path, "a.json")
    assert kinds(faults) == ["found-by-name"]
    assert found.areas.tolist() == [81]


def test_all_names_decide_where_the_images_are(tmp_path):
    names = [f"{i}.png" for i in range(30)]
    for name in names[10:]:
        picture(tmp_path / "train" / name)
    write(tmp_path / "a.json", names, [annotation(i, i) for i in range(1, 31)])
    found, faults = read(tmp_path, "a.json")
    assert len(found) == 20
    assert kinds(faults) == ["missing-image"] * 10


def test_accents_are_the_same_however_they_are_encoded(tmp_path):
    picture(tmp_path / unicodedata.normalize("NFD", "café.png"))
    write(tmp_path / "a.json", [unicodedata.normalize("NFC", "café.png")], [annotation()])
    found, faults = read(tmp_path, "a.json")
    assert len(found) == 1
    assert kinds(faults) == ["found-by-name"]


def test_a_name_in_another_case_gets_a_hint(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "Look.PNG")
    write(tmp_path / "a.json", ["a.png", "look.png"], [annotation(), annotation(2, 2)])
    _, faults = read(tmp_path, "a.json")
    assert faults[0].value == "look.png (Look.PNG exists, but differs in case)"


def test_one_id_for_two_files_drops_both_and_says_which(tmp_path):
    for name in ("0.png", "1.png", "2.png"):
        picture(tmp_path / name)
    images = [{"id": i, "file_name": f"{n}.png", "width": 64, "height": 48} for n, i in enumerate((1, 1, 2))]
    write(tmp_path / "a.json", images, [annotation(1, 1), annotation(2, 1, 2), annotation(3, 2)])
    found, faults = read(tmp_path, "a.json")
    assert found.image_ids.tolist() == ["2.png"]
    assert found.annotation_ids.tolist() == [3]
    assert [f.value for f in faults if f.kind == "image-id-twice"] == ["id 1: images[0] 0.png, images[1] 1.png"] * 2
    assert [(f.kind, f.place) for f in faults if f.place] == [
        ("unknown-image", "annotation id 1"),
        ("unknown-image", "annotation id 2"),
    ]


def test_one_file_under_two_ids(tmp_path):
    picture(tmp_path / "0.png")
    images = [{"id": i, "file_name": "0.png", "width": w, "height": 48} for i, w in ((1, 64), (2, 64), (3, 63))]
    other = [[20, 20, 30, 20, 30, 30, 20, 30]]
    annotations = [annotation(1, 1), annotation(2, 2, segmentation=other, bbox=[20, 20, 10, 10]), annotation(3, 3)]
    write(tmp_path / "a.json", images, annotations)
    found, faults = read(tmp_path, "a.json")
    assert found.areas.tolist() == [81, 100]
    assert kinds(faults) == ["file-under-two-ids", "file-under-two-ids", "unknown-image"]
    assert faults[0].value == "images[0] id 1 and images[1] id 2"


def test_categories_that_share_an_id_or_a_name(tmp_path):
    picture(tmp_path / "0.png")
    twice = ((1, "shirt"), (1, "dress"), (2, "shoe"), (3, "shoe"), (4, "hat"), (4, "hat"))
    annotations = [annotation(i, 1, i, [[i, 3, i + 9, 3, i + 9, 12, i, 12]]) for i in (1, 2, 3)]
    write(tmp_path / "a.json", ["0.png"], annotations, twice)
    found, faults = read(tmp_path, "a.json")
    assert found.categories.tolist() == [2, 3]
    assert [(f.kind, f.value) for f in faults[:2]] == [
        ("category-id-twice", "id 1: shirt, dress"),
        ("category-name-twice", "shoe: ids 2, 3"),
    ]
    assert [(f.kind, f.place) for f in faults[2:]] == [("unknown-class", "annotation id 1")]


@pytest.mark.parametrize("stray", [[50, 40], [50, 40, 51, 40]])
def test_a_stray_part_leaves_the_rest(tmp_path, stray):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", ["0.png"], [annotation(segmentation=[*SQUARE, stray])])
    found, faults = read(tmp_path, "a.json")
    assert found.areas.tolist() == [81]
    assert [(f.kind, f.value) for f in faults] == [("part-left-out", "1 of 2 parts with fewer than three points")]


@pytest.mark.parametrize(
    ("more", "class_id"),
    [
        ({"attribute_ids": None}, "1"),
        ({"attribute_ids": [7, "5", 5.0]}, "1_5_7"),
        ({"category_id": 1.0}, "1"),
        ({"category_id": "1"}, "1"),
        ({"image_id": "1"}, "1"),
        ({"image_id": 1.0}, "1"),
        ({"iscrowd": None}, "1"),
        ({"iscrowd": "0"}, "1"),
        ({"segmentation": SQUARE[0]}, "1"),
        ({"segmentation": [[str(v) for v in SQUARE[0]]]}, "1"),
        ({"segmentation": [np.reshape(SQUARE[0], (-1, 2)).tolist()]}, "1"),
        ({"segmentation": np.reshape(SQUARE[0], (-1, 2)).tolist()}, "1"),
        ({"segmentation": {"size": ["48", "64"], "counts": encoded_square().decode()}}, "1"),
        ({"segmentation": {"size": [48.0, 64.0], "counts": str(encoded_square())}}, "1"),
        ({"segmentation": {"size": [48, 64], "counts": ["147", 9.0, *[39, 9] * 8, "2532"]}}, "1"),
    ],
)
def test_loose_types_are_taken(tmp_path, more, class_id):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", ["0.png"], [annotation(**more)])
    found, faults = read(tmp_path, "a.json")
    assert faults == []
    assert found.class_ids.tolist() == [class_id]
    assert found.areas.tolist() == [81]


@pytest.mark.parametrize(
    ("more", "kind", "value"),
    [
        ({"segmentation": None}, "no-segmentation", "category_id 1: only a box"),
        ({"segmentation": [], "bbox": None}, "no-segmentation", "category_id 1: no mask"),
        ({"segmentation": [[1, 2, None, 4, 5, 6]]}, "bad-segmentation", "a polygon with a point at nan"),
        ({"segmentation": [[1, 2, 3, 4, 5]]}, "bad-segmentation", "a polygon of 5 numbers: must be pairs of x and y"),
        (
            {"segmentation": {"size": [48, 64], "counts": [500, 20]}},
            "bad-segmentation",
            "counts: a sum of 520 pixels, but the image has 3072",
        ),
        (
            {"segmentation": [[0.1, 0.2, 0.9, 0.2, 0.9, 0.8]]},
            "bad-segmentation",
            "points are shares of the picture, from 0 to 1; COCO requires pixels",
        ),
        (
            {"segmentation": {"size": [64, 48], "counts": [500, 20, 2552]}},
            "bad-segmentation",
            "run-length encoding of size [64, 48], image [48, 64] (height, width)",
        ),
        ({"attribute_ids": ["red"]}, "bad-segmentation", "attribute_ids: 'red': must be an id from 0 to 999999"),
        ({"category_id": None}, "unknown-class", "category_id null"),
        ({"image_id": float("nan")}, "unknown-image", "image_id NaN: no such image"),
        ({"segmentation": [[70, 3, 79, 3, 79, 12]]}, "empty-mask", "category_id 1: no pixel inside the picture"),
    ],
)
def test_what_cannot_be_taken_says_why(tmp_path, more, kind, value):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", ["0.png"], [annotation(**more)])
    _, faults = read(tmp_path, "a.json")
    assert [(f.kind, f.value, f.place) for f in faults] == [(kind, value, "annotation id 1")]


def test_polygons_outside_the_picture_and_other_boxes_are_remarks(tmp_path):
    picture(tmp_path / "0.png")
    outside = annotation(segmentation=[[10, 10, 110, 10, 110, 80, 10, 80]], bbox=[10, 10, 100, 70])
    boxed = annotation(2, 1, 2, bbox=[30, 30, 9, 9])
    write(tmp_path / "a.json", ["0.png"], [outside, boxed])
    found, faults = read(tmp_path, "a.json")
    assert found.areas.tolist() == [54 * 38, 81]
    assert [(f.kind, f.value, f.is_remark) for f in faults] == [
        ("outside-picture", "71% of the polygons' boxes, picture 48x64", True),
        ("box-disagrees", "bbox [10, 10, 100, 70], the mask's box is [10, 10, 54, 38]", True),
        ("box-disagrees", "bbox [30, 30, 9, 9], the mask's box is [3, 3, 9, 9]", True),
    ]


def test_a_size_that_is_not_given_is_read_from_the_file(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", [{"id": 1, "file_name": "0.png", "width": None}], [annotation()])
    found, faults = read(tmp_path, "a.json")
    assert faults == []
    assert found.sizes.tolist() == [[48, 64]]


def test_ids_survive_the_way_out(tmp_path):
    """The exported file keeps crowd regions and the ids of images (including text), annotations and categories."""
    for name in ("0.png", "1.png"):
        picture(tmp_path / name)
    images = [{"id": i, "file_name": f, "width": 64, "height": 48} for i, f in ((12, "0.png"), ("x7", "1.png"))]
    annotations = [annotation(31, "x7", 3), annotation(5, 12, 13), annotation(44, 12, 3, iscrowd=1)]
    file = write(tmp_path / "a.json", images, annotations, ((3, "shirt"), (13, "shoe")))
    found, _ = read(tmp_path, file)
    assert write_coco(found, tmp_path / "b.json", [0, 1]) == (2, 1)
    written = json.loads((tmp_path / "b.json").read_text())
    assert [image["id"] for image in written["images"]] == [12, "x7"]
    assert [(a["id"], a["image_id"], a["category_id"], a["iscrowd"]) for a in written["annotations"]] == [
        (5, 12, 13, 0),
        (44, 12, 3, 1),
        (31, "x7", 3, 0),
    ]
    again, _ = read(tmp_path, "b.json")
    for name in ("coco_ids", "annotation_ids", "class_ids", "areas", "crowd_ids", "crowd_runs"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name


def test_crowds_train_where_asked_for(tmp_path):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", ["0.png"], [annotation(iscrowd=1)])
    found, faults = read(tmp_path, "a.json", crowd="train")
    assert faults == []
    assert (len(found.class_ids), len(found.crowd_ids)) == (1, 0)
    with pytest.raises(UserError, match=r"data\.crowd=yes: give ignore or train"):
        CocoReader(tmp_path, "a.json", crowd="yes")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "Detection results are lists"),
        (b"{}", r"no list of images \(found: nothing\)"),
        (b'{"images": [], "shapes": []}', r"no list of annotations \(found: images, shapes\)"),
        ('{"images": "Mäntel"}'.encode("latin-1"), r"not a JSON file \(byte 13 is not UTF-8; save the file as UTF-8\)"),
        (b'{"images": [', "not a JSON file"),
        (
            b'{"images": [], "categories": [], "annotations": [{"segments_info": []}]}',
            "panoptic format. Give the instances file",
        ),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": "x"}]}',
            r'categories\[0\]: {"id": "x"}: must have an id from 0 to 999999 and a name of one line',
        ),
    ],
)
def test_what_is_no_data_set_says_so_in_a_line(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        CocoReader(tmp_path, "a.json")
    assert len(str(raised.value)) < 400


def test_check_lists_everything_where_nothing_can_be_used(tmp_path, capsys):
    write(tmp_path / "a.json", ["missing.png", "lost.png"], [annotation(), annotation(2, 2, segmentation=None)])
    assert main(["check", str(tmp_path), "--coco", "a.json", "--report", str(tmp_path / "r.csv")]) == 1
    printed = capsys.readouterr().out
    for line in ("missing-image: missing.png", "missing-image: lost.png", "no-segmentation: lost.png annotation id 2"):
        assert line in printed
    assert "none of the 2 images in the annotations is usable" in printed
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 4


def test_check_says_that_crowds_alone_are_no_masks(tmp_path, capsys):
    picture(tmp_path / "0.png")
    write(tmp_path / "a.json", ["0.png"], [annotation(iscrowd=1)])
    assert main(["check", str(tmp_path), "--coco", "a.json"]) == 1
    printed = capsys.readouterr().out
    assert "crowd-region: 0.png annotation id 1" in printed
    assert "1 images with 0 masks of 0 categories and 1 crowd regions" in printed
    assert "no mask can be used" in printed


@pytest.mark.parametrize(
    ("row", "class_id"),
    [
        (("48.0", "64.0", "6.0", "nan"), "6"),
        (("48", "64", "6.0", "115.0"), "6_115"),
        (("48.0", "64.0", "6", ""), "6"),
        (("48", "64", "6", "[136, 115]"), "6_115_136"),
    ],
)
def test_floats_of_pandas_are_whole_numbers(kaggle_folder, row, class_id):
    names = ("Height", "Width", "ClassId", "AttributesIds")
    values = dict(zip(names, row, strict=True))
    root = kaggle_folder([{"ImageId": "a.jpg", "EncodedPixels": "1 3 49 3", **values}], {"a.jpg": SIZE})
    found, faults = load_annotations(KaggleReader(root))
    assert faults == []
    assert found.class_ids.tolist() == [class_id]


# Real files, if they are available.


@real
@pytest.mark.parametrize(
    ("case", "file", "images", "masks", "crowds", "wanted"),
    [
        ("boxes-only", "a.json", 1, 0, 0, {"no-segmentation": 3}),
        ("crowd-all", "instances_default.json", 4, 0, 4, {"crowd-region": 4}),
        ("degenerate-part", "a.json", 1, 3, 0, {"part-left-out": 2, "bad-segmentation": 1}),
        ("dot-slash", "a.json", 1, 1, 0, {}),
        ("dup-image-id", "a.json", 1, 1, 0, {"image-id-twice": 2, "unknown-image": 2}),
        ("first-ten-missing", "a.json", 20, None, 0, {"missing-image": 10}),
        ("nfd-names", "a.json", 2, None, 0, {"found-by-name": 1}),
        ("roboflow-plain", "valid/_annotations.coco.json", 2, 2, 0, {}),
        ("stale-scale", "a.json", 3, 3, 0, {"outside-picture": 2}),
        ("windows-path", "result.json", 1, 1, 0, {}),
        ("fashionpedia-sample", "sample.json", 2, None, 0, {}),
        ("e2e-coco", "poly.json", 24, 160, 0, {}),
        ("e2e-coco", "poly_crowd.json", 24, 150, 10, {"crowd-region": 10}),
    ],
)
def test_case(case, file, images, masks, crowds, wanted):
    found, faults = load_annotations(CocoReader(CASES / case, file))
    counted = {kind: kinds(faults).count(kind) for kind in kinds(faults)}
    counted.pop("image-without-rows", None)
    counted.pop("box-disagrees", None)
    assert counted == wanted
    assert (len(found), len(found.crowd_ids)) == (images, crowds)
    assert masks is None or len(found.class_ids) == masks
    content = json.loads((CASES / case / file).read_text())
    known = {a["id"]: a for a in content["annotations"]}
    height_width = {json.dumps(i["id"]): (i["height"], i["width"]) for i in content["images"]}
    for image, coco_id in enumerate(found.coco_ids.tolist()):
        for mask in found.instances(image):
            theirs = known[int(found.annotation_ids[mask])]["segmentation"]
            if isinstance(theirs, list):
                polygons = [part for part in theirs if len(part) >= 6]
                theirs = coco_mask.merge(coco_mask.frPyObjects(polygons, *height_width[coco_id]))
                assert int(coco_mask.area(theirs)) == int(found.areas[mask])


@real
def test_case_of_floats():
    found, faults = read_annotations(CASES / "csv-float-sizes")
    assert faults == []
    assert found.class_ids.tolist() == ["6", "0"]
    assert len(found) == 3


@real
def test_a_case_without_a_usable_image_keeps_its_faults(tmp_path):
    file = write(tmp_path / "a.json", ["nowhere.png"], [annotation()])
    with pytest.raises(UnusableData) as raised:
        read(tmp_path, file)
    assert kinds(raised.value.faults) == ["missing-image"]
