"""Image files of every kind are read in the frame of their masks."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from fashion_hydra.data.annotation_cache import _judge
from fashion_hydra.data.image_files import ImageMemory, examine, read_pixels, turn
from fashion_hydra.utils.errors import UserError


def photo(height=48, width=64, seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_are_pillows(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo().save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        wanted = np.asarray(ImageOps.exif_transpose(stored))
        assert (turn(np.asarray(stored), orientation) == wanted).all()
    assert examine(tmp_path, "a.png", decode=True).orientation == orientation
    pixels = read_pixels(tmp_path / "a.png", size=wanted.shape[:2], orientation=orientation)
    assert (pixels == wanted).all()


FORMATS = {
    "rgb.png": ("RGB", {}),
    "grey.png": ("L", {}),
    "alpha.png": ("RGBA", {}),
    "palette.png": ("P", {}),
    "palette.gif": ("P", {}),
    "lossless.webp": ("RGB", {"lossless": True}),
    "rgb.bmp": ("RGB", {}),
    "rgb.tif": ("RGB", {}),
    "rgb.ppm": ("RGB", {}),
    "grey.jpg": ("L", {"quality": 95}),
    "cmyk.jpg": ("CMYK", {"quality": 95}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read_as_pillow_reads_it(tmp_path, name):
    mode, options = FORMATS[name]
    photo().convert(mode).save(tmp_path / name, **options)
    facts = examine(tmp_path, name, decode=True)
    assert (facts.fault, facts.height, facts.width) == ("", 48, 64)
    with Image.open(tmp_path / name) as stored:
        wanted = np.asarray(stored.convert("RGB")).astype(int)
    found = read_pixels(tmp_path / name, size=(48, 64), orientation=1)
    assert np.abs(found - wanted).mean() <= (6 if mode == "CMYK" else 1)


def test_sixteen_bits_become_eight(tmp_path):
    deep = np.linspace(0, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    found = read_pixels(tmp_path / "deep.png", size=(48, 64), orientation=1)
    assert np.abs(found[..., 0] - deep / 257.0).max() <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("decode", [False, True])
def test_a_file_cut_short_is_seen(tmp_path, name, share, decode):
    photo(200, 300).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert examine(tmp_path, name, decode=decode).fault == ""
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    assert examine(tmp_path, name, decode=decode).fault == "cut-short-image"


def test_what_a_camera_appends_is_no_fault(tmp_path):
    photo(200, 300).save(tmp_path / "a.jpg")
    with (tmp_path / "a.jpg").open("ab") as stream:
        stream.write(bytes(200_000))
    assert examine(tmp_path, "a.jpg", decode=False).fault == ""


def test_a_bomb_is_refused_by_its_header(tmp_path):
    header = io.BytesIO()
    Image.new("L", (8, 8)).save(header, "PNG")
    huge = header.getvalue().replace((8).to_bytes(4, "big") * 2, (60_000).to_bytes(4, "big") * 2)
    (tmp_path / "a.png").write_bytes(huge)
    assert examine(tmp_path, "a.png", decode=True).fault == "unreadable-image"


def test_what_cannot_be_decoded_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded"):
        read_pixels(tmp_path / "a.jpg", size=(4, 4), orientation=1)
    photo().save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png: decodes to 48x64 instead of 4x4"):
        read_pixels(tmp_path / "b.png", size=(4, 4), orientation=1)


def test_memory_looks_again_only_at_what_changed(tmp_path, monkeypatch):
    looked = []

    def counted(folder, file, *, decode):
        looked.append(file)
        return examine(folder, file, decode=decode)

    monkeypatch.setattr("fashion_hydra.data.image_files.examine", counted)
    for name in ("a.png", "b.png"):
        photo().save(tmp_path / name)

    def check(decode=True):
        looked.clear()
        facts = list(ImageMemory(tmp_path / "memory.csv", tmp_path).examine_all(["a.png", "b.png"], decode=decode))
        return sorted(looked), [f.height for f in facts]

    assert check(decode=False) == (["a.png", "b.png"], [48, 48])
    assert check(decode=False) == ([], [48, 48])
    assert check() == (["a.png", "b.png"], [48, 48])  # only the headers were read before
    assert check(decode=False) == ([], [48, 48])
    photo(56).save(tmp_path / "b.png")
    assert check() == (["b.png"], [48, 56])
    with (tmp_path / "memory.csv").open("a") as stream:
        stream.write("b.png,12")  # cut off while writing
    assert check() == ([], [48, 56])


class Frames:
    """Stand-in for a reader and a builder whose annotations list these image sizes."""

    def __init__(self, sizes):
        self.sizes = sizes
        self.image_ids = [str(i) for i in range(len(sizes))]

    def place_of(self, image_id):
        return ""


@pytest.mark.parametrize(
    ("stored", "recorded", "wanted"),
    [
        # (height, width, EXIF) of the files, sizes in the annotations, orientations to apply
        ([(10, 20, 6)], [(20, 10)], [6]),
        ([(10, 20, 6)], [(10, 20)], [1]),
        ([(10, 20, 3)], [(10, 20)], [3]),  # viewers rotate it
        ([(10, 20, 3), (10, 20, 8)], [(10, 20), (10, 20)], [1, 1]),  # the other photo shows that sizes are as stored
        ([(10, 10, 6), (10, 20, 8)], [(10, 10), (20, 10)], [6, 8]),
        ([(10, 20, 1)], [(10, 20)], [1]),
    ],
)
def test_the_masks_frame_is_found(stored, recorded, wanted):
    from fashion_hydra.data.image_files import ImageFacts

    facts = [ImageFacts(h, w, o) for h, w, o in stored]
    faults = []
    keep, orientation = _judge(Frames(recorded), Frames(recorded), facts, faults)
    assert keep.all()
    assert orientation.tolist() == wanted
    assert faults == []
