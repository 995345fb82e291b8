"""Typical picture folders: nested and hidden files, many formats, names that differ only in the suffix."""

import shutil

import numpy as np
import pytest
from PIL import Image, features

from fashion_hydra.data import image_list
from fashion_hydra.data.image_files import IMAGE_SUFFIXES
from fashion_hydra.data.image_list import list_folder
from fashion_hydra.formats.writers import free_path
from fashion_hydra.utils.errors import UserError


def picture(path, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), (250, 120, 10), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "in"
    for name in ("look.jpg", "look.png", "Söhne (#1) 100%.JPG", "服装 写真.webp", "2023/mai/look.jpg", "2023/LOOK.JPG"):
        picture(root / name, format="JPEG" if name.lower().endswith("jpg") else None)
    for name in ("download.jfif", "pic.jpe"):
        picture(root / name, format="JPEG")
    picture(root / ".hidden" / "look.jpg")
    (root / "._look.jpg").write_bytes(b"macOS")
    (root / "folder.jpg").mkdir()
    (root / "notes.txt").write_text("x")
    (root / "IMG_0001.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    return root


TOP = {"look.jpg", "look.png", "Söhne (#1) 100%.JPG", "服装 写真.webp", "download.jfif", "pic.jpe"}


@pytest.fixture
def without_heif(monkeypatch):
    monkeypatch.setattr(image_list, "IMAGE_SUFFIXES", [s for s in IMAGE_SUFFIXES if not s.startswith(".hei")])


def test_a_folder_tells_what_it_leaves_out(pictures, without_heif):
    found = list_folder(pictures)
    assert set(found.files) == set(found.image_ids) == TOP
    assert found.left_out == (
        "2 in subfolders (data.recursive=true includes them), 1 .heic/.heif (pip install pillow-heif to read them), "
        "2 hidden, 1 folders named like pictures, 1 other files"
    )
    assert all(found.read(i).shape == (6, 8, 3) for i in range(len(found)))


def test_folders_below(pictures, without_heif):
    found = list_folder(pictures, recursive=True)
    assert set(found.files) == TOP | {"2023/mai/look.jpg", "2023/LOOK.JPG"}
    assert "below" not in found.left_out
    assert "2 hidden" in found.left_out
    (pictures / "test" / "a").mkdir(parents=True)
    shutil.copy(pictures / "look.jpg", pictures / "test" / "a" / "b.jpg")
    assert list_folder(pictures, recursive=True).files == ("a/b.jpg",)


def test_one_picture(pictures):
    found = list_folder(pictures / "look.png")
    assert (found.folder, found.files, found.image_ids) == (pictures, ("look.png",), ("look.png",))
    assert found.read(0).shape == (6, 8, 3)
    with pytest.raises(UserError, match=r"notes\.txt: is a file, but not a picture. Give a picture, a folder"):
        list_folder(pictures / "notes.txt")


def test_pictures_that_need_a_plugin(pictures, without_heif, tmp_path):
    only = tmp_path / "only"
    only.mkdir()
    shutil.copy(pictures / "IMG_0001.HEIC", only)
    for given in (only, only / "IMG_0001.HEIC"):
        with pytest.raises(UserError, match=r"1 \.heic/\.heif pictures, which need Pillow's plugin: pip install"):
            list_folder(given)


def test_nothing_but_folders_below(pictures, without_heif, tmp_path):
    above = tmp_path / "above"
    shutil.copytree(pictures / "2023", above / "2023")
    with pytest.raises(
        UserError, match=r"no images\. .*Left out: 2 in subfolders \(data\.recursive=true includes them\)"
    ):
        list_folder(above)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
@pytest.mark.parametrize("orientation", [1, 6])
def test_avif_is_read_as_viewers_show_it(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(tmp_path / "a.avif", exif=exif.tobytes(), quality=90)
    pixels = list_folder(tmp_path).read(0)
    assert pixels.shape == ((8, 6, 3) if orientation == 6 else (6, 8, 3))
    assert np.abs(pixels.astype(int) - (250, 120, 10)).max() < 12


def test_what_is_made_of_files_never_meets():
    taken = set()
    files = ["look.jpg", "look.png", "LOOK.JPG", "look.png.jpg", "a.b/look", "look", "2023/look.jpg"]
    made = [free_path(file, ".jpg", taken) for file in files]
    assert made[:3] == ["look.jpg", "look.png.jpg", "LOOK.JPG.jpg"]
    assert made[-1] == "2023/look.jpg"
    assert made[4] == "a.b/look.jpg"
    assert len({name.lower() for name in made}) == len(files)
