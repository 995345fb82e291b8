"""The app's server: results equal those of the API, and invalid requests are rejected."""

import csv
import io
import json
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
from PIL import Image

from fashion_hydra.app import photos, server
from fashion_hydra.app.photos import Session


def ask(address, path, *, data=None, headers=None, method=None):
    """Return status and response, parsed if it is JSON."""
    request = urllib.request.Request(f"{address}/{path}", data=data, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            status, kind, content = response.status, response.headers["content-type"], response.read()
    except urllib.error.HTTPError as error:
        status, kind, content = error.code, error.headers["content-type"], error.read()
    return status, json.loads(content) if kind == "application/json" else content


def sent(address, path, name=None):
    status, answer = ask(address, f"api/photos?name={name or path.name}", data=path.read_bytes())
    assert status == 200, answer
    return answer


def test_objects_are_those_of_the_api(address, session, photo):
    about = sent(address, photo)
    found = session.predictor(photo)
    assert (about["width"], about["height"]) == (found.size[1], found.size[0])
    status, answer = ask(address, f"api/photos/{about['number']}/objects")
    assert status == 200
    assert [one["class"] for one in answer["found"]] == found.category_ids
    assert [one["score"] for one in answer["found"]] == pytest.approx(found.scores, abs=1e-4)
    assert all(one["path"].startswith("M") for one in answer["found"])
    assert answer["truth"] == []
    middle = float(np.median(found.scores))
    _, answer = ask(address, f"api/photos/{about['number']}/objects?score_thr={middle}")
    assert [one["score"] for one in answer["found"]] == pytest.approx(found[found.scores > middle].scores, abs=1e-4)
    status, picture = ask(address, f"api/photos/{about['number']}/picture")
    assert Image.open(io.BytesIO(picture)).size == tuple(about["shown"])


def test_a_large_photo_is_shown_reduced(address, photo, tmp_path):
    Image.open(photo).resize((2400, 1800)).save(tmp_path / "large.jpg")
    about = sent(address, tmp_path / "large.jpg")
    assert about["shown"] == [1000, 750]
    assert (about["width"], about["height"]) == (2400, 1800)


def test_downloads_are_what_predict_writes(address, session, photo):
    numbers = [sent(address, photo)["number"] for _ in range(2)]
    found = session.predictor(photo, score_thr=0.35)
    query = f"photos={numbers[0]},{numbers[1]}&score_thr=0.35"
    _, results = ask(address, f"api/download/coco?{query}")
    mine = [{**one, "image_id": 1} for one in results if one["image_id"] == 1]
    assert mine == found.to_coco(1)
    assert {one["image_id"] for one in results} == {1, 2}
    _, content = ask(address, f"api/download/csv?{query}")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert {row["ImageId"] for row in rows} == {photo.name, f"{photo.stem}-2{photo.suffix}"} or len(rows) > 1
    _, content = ask(address, f"api/download/masks?{query}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = [name for name in archive.namelist() if name.endswith(".png")]
        assert len(files) == 2 * len(found)
        mask = np.array(Image.open(archive.open(sorted(files)[0])))
    assert (mask == found.masks[0]).all()
    dropped = found.category_ids[0]
    _, results = ask(address, f"api/download/coco?{query}&drop={dropped}")
    assert dropped not in {one["category_id"] for one in results}


def test_photos_of_the_data_set_have_their_truth(address, session):
    data = session.annotations
    index = next(i for i in range(len(data)) if len(data.instances(i)) > 2)
    status, about = ask(address, f"api/data/{index}", method="POST")
    assert status == 200
    assert about["hasTruth"]
    _, answer = ask(address, f"api/photos/{about['number']}/objects")
    assert [one["class"] for one in answer["truth"]] == data.categories[list(data.instances(index))].tolist()
    assert ask(address, f"api/data/{len(data)}", method="POST") == (400, {"error": "the data set has no such photo"})
    _, described = ask(address, "api/session")
    assert described["data"] == data.image_ids.tolist()
    assert described["thresholds"]["score_thr"] == 0.3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jpg", b"", "a.jpg: unreadable-image: unknown format"),
        ("a.jpg", b"<script>alert(1)</script>", "a.jpg: unreadable-image: unknown format"),
        ("a.txt", b"text", "a.txt: not a picture by its name"),
        ("%00.jpg", b"x", "control characters"),
        ("..%2F..%2Fetc%2Fpasswd", b"x", "passwd: not a picture by its name"),
    ],
)
def test_uploads_that_are_no_photos(address, name, content, message):
    status, answer = ask(address, f"api/photos?name={name}", data=content, method="POST")
    assert status == 400
    assert message in answer["error"]
    assert "/tmp" not in answer["error"]


def test_a_photo_that_is_cut_short(address, photo):
    content = photo.read_bytes()
    status, answer = ask(address, f"api/photos?name={photo.name}", data=content[: len(content) // 2])
    assert status == 400
    assert photo.name in answer["error"]


def test_a_photo_that_unpacks_to_too_much(address):
    stream = io.BytesIO()
    Image.new("1", (40_000, 40_000)).save(stream, "PNG")
    assert len(stream.getvalue()) < 2**20
    status, answer = ask(address, "api/photos?name=bomb.png", data=stream.getvalue())
    assert status == 400
    assert "bomb.png: too-large-image" in answer["error"]


def test_a_file_that_is_too_large(address, monkeypatch):
    monkeypatch.setattr(server, "LARGEST_FILE", 2**20)
    status, answer = ask(address, "api/photos?name=a.jpg", data=bytes(2**20 + 1))
    assert (status, answer) == (400, {"error": "the file is larger than 1 MB: reduce the photo"})


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("score_thr=much", "score_thr=much: must be a number"),
        ("score_thr=nan", "score_thr"),
        ("score_thr=2", "postprocess.score_thr=2"),
        ("score_thr=0.001", "below what the candidates hold"),
        ("iou_thr=0.123", "not among the thresholds"),
        ("drop=hat", "drop=hat: must be category ids"),
        ("drop=999", "999"),
    ],
)
def test_thresholds_that_there_are_not(address, photo, query, message):
    number = sent(address, photo)["number"]
    status, answer = ask(address, f"api/photos/{number}/objects?{query}")
    assert status == 400
    assert message in answer["error"]


def test_what_is_not_there(address):
    for path in ("api/photos/999999/objects", "api/photos/999999/picture", "api/download/csv?photos=x"):
        status, answer = ask(address, path)
        assert (status, answer) == (404, {"error": "this photo is no longer in memory: drop it again"})
    assert ask(address, "api/download/exe?photos=1")[0] == 400
    assert ask(address, "../../etc/passwd")[0] == 404


def test_pages_of_other_places_get_nothing(address, photo):
    elsewhere = {"Origin": "http://evil.example"}
    status, answer = ask(address, "api/photos?name=a.jpg", data=photo.read_bytes(), headers=elsewhere)
    assert (status, answer) == (403, {"error": "refused, because a page of another site sent the request"})
    assert ask(address, "api/session", headers={"Host": "evil.example"})[0] == 400  # a foreign name


def test_old_photos_make_place(session, photo, monkeypatch):
    monkeypatch.setattr(photos, "_KEPT", 2)
    own = Session(session.predictor)
    numbers = [own.add(photo.name, photo.read_bytes()).number for _ in range(3)]
    with pytest.raises(KeyError):
        own.get(numbers[0])
    assert own.get(numbers[2]).name == photo.name
