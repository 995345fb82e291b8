"""Downloads from a test server that truncates, corrupts and loses data, as real servers do."""

import hashlib
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from fashion_hydra.utils.download import fetch, locate
from fashion_hydra.utils.errors import UserError
from tests import PROJECT

CONTENT = np.random.default_rng(0).integers(0, 256, 3_000_000, dtype=np.uint8).tobytes()
OTHER = CONTENT[::-1]
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """A server whose content and behavior the tests set; `asked` records the Range header of each request."""

    content, etag, modified = CONTENT, '"one"', None
    ranges = check_if_range = tell_length = True
    cut_at = None  # number of response bytes after which the connection closes
    kind, status, location = "application/octet-stream", None, None

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []

    def url(self, path="/models/weights.pth"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status or server.location:
            self.send_response(server.status or 302)
            self.send_header("Location", server.location or "")
            self.end_headers()
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if server.check_if_range and self.headers.get("If-Range") not in (None, server.etag, server.modified):
            start = 0
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        for name, value in (("ETag", server.etag), ("Last-Modified", server.modified), ("Content-Type", server.kind)):
            if value:
                self.send_header(name, value)
        if server.tell_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.cut_at])


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def half_way(server, folder, at=1_000_000):
    server.cut_at = at
    with pytest.raises(UserError, match=f"ended early. {at} of 3000000 bytes are kept in .*weights.pth.part; repeat"):
        fetch(server.url(), folder=folder)
    server.cut_at = None
    server.asked.clear()


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_file_is_downloaded_once(server, tmp_path):
    first = locate(server.url(), folder=tmp_path)
    second = locate(server.url(), folder=tmp_path, sha256=SUM.upper())
    assert first == second
    assert first.path.read_bytes() == CONTENT
    assert (first.sha256, first.path.name) == (SUM, "weights.pth")
    assert server.asked == [None]
    assert files(tmp_path) == ["weights.pth"]


def test_addresses_with_the_same_last_name_do_not_meet(server, tmp_path):
    one = fetch(server.url("/one/epoch_12.pth"), folder=tmp_path)
    server.content = OTHER
    two = fetch(server.url("/two/epoch_12.pth"), folder=tmp_path)
    assert (one.read_bytes(), two.read_bytes()) == (CONTENT, OTHER)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_download_resumes(server, tmp_path, ranges):
    half_way(server, tmp_path)
    server.ranges = ranges
    assert fetch(server.url(), folder=tmp_path, sha256=SUM).read_bytes() == CONTENT
    assert server.asked == ["bytes=1000000-"]
    assert files(tmp_path) == ["weights.pth"]


@pytest.mark.parametrize("check_if_range", [True, False])
@pytest.mark.parametrize("mark", ["etag", "modified", "length"])
def test_half_of_a_file_that_changed_is_not_resumed(server, tmp_path, mark, check_if_range):
    server.check_if_range = check_if_range
    server.etag = '"one"' if mark == "etag" else None
    server.modified = "Mon, 01 Jan 2024 00:00:00 GMT" if mark == "modified" else None
    half_way(server, tmp_path)
    server.content = OTHER
    if mark == "etag":
        server.etag = '"two"'
    elif mark == "modified":
        server.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    else:
        server.content = OTHER[:-5]
    assert fetch(server.url(), folder=tmp_path).read_bytes() == server.content


def test_a_weak_tag_is_not_sent_and_not_trusted(server, tmp_path):
    server.etag = 'W/"one"'
    half_way(server, tmp_path)
    server.etag, server.content = 'W/"two"', OTHER
    assert fetch(server.url(), folder=tmp_path).read_bytes() == OTHER


def test_a_file_that_became_shorter_than_what_is_kept(server, tmp_path):
    half_way(server, tmp_path)
    server.content, server.etag, server.check_if_range = OTHER[:500_000], None, False
    assert fetch(server.url(), folder=tmp_path).read_bytes() == server.content


def test_a_complete_part_is_not_fetched_again(server, tmp_path):
    half_way(server, tmp_path)
    part = next(tmp_path.rglob("*.part"))
    part.write_bytes(CONTENT)
    assert fetch(server.url(), folder=tmp_path, sha256=SUM).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("given", [{"sha256": SUM}, {}])
def test_wrong_bytes_are_refused_and_removed(server, tmp_path, given):
    server.content = OTHER
    url = server.url("/weights.pth" if given else f"/weights_20200312-{SUM[:8]}.pth")
    with pytest.raises(UserError, match=f"sha256 {hashlib.sha256(OTHER).hexdigest()}, expected {SUM[:8]}.*deleted"):
        fetch(url, folder=tmp_path, **given)
    assert not [name for name in files(tmp_path) if not name.endswith(".json")]
    server.content = CONTENT
    assert fetch(url, folder=tmp_path, **given).read_bytes() == CONTENT


def test_a_date_in_the_name_is_no_sum(server, tmp_path):
    assert fetch(server.url("/htc_x101-20190408.pth"), folder=tmp_path).read_bytes() == CONTENT


def test_a_kept_file_of_another_sum_is_refused(server, tmp_path):
    path = fetch(server.url(), folder=tmp_path)
    with pytest.raises(UserError, match=f"{path}: its sha256 is {SUM}, expected 0{{64}}. Remove the file, or"):
        locate(server.url(), folder=tmp_path, sha256="0" * 64)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"status": 404}, "the server answers 404 Not Found. Nothing was downloaded"),
        ({"kind": "text/html; charset=utf-8"}, "the server sends a web page, not a file"),
        ({"location": "file:///etc/passwd"}, "the server answers 302"),
        ({"location": "ftp://127.0.0.1/x"}, "unknown url type: ftp"),
    ],
)
def test_answers_that_are_no_file(server, tmp_path, how, message):
    for name, value in how.items():
        setattr(server, name, value)
    with pytest.raises(UserError, match=message):
        fetch(server.url(), folder=tmp_path)
    assert files(tmp_path) == []


def test_a_server_that_is_away_keeps_what_there_is(server, tmp_path):
    half_way(server, tmp_path)
    server.status = 503
    with pytest.raises(UserError, match=r"answers 503 Service Unavailable. 1000000 of 3000000 bytes are kept in"):
        fetch(server.url(), folder=tmp_path)
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/x.pth: .*refused. Nothing was downloaded"):
        fetch("http://127.0.0.1:9/x.pth", folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "sha256", "message"),
    [
        ("ftp://host/x.pth", None, "ftp://host/x.pth: only http:// and https:// URLs"),
        ("file:///etc/passwd", None, "only http:// and https:// URLs"),
        ("nowhere.pth", None, "nowhere.pth: no such file. Give a file, or a URL"),
        ("nowhere.pth", "946fd751", "sha256=946fd751: must be 64 hexadecimal digits"),
    ],
)
def test_files_that_cannot_be_had_are_named(tmp_path, source, sha256, message):
    with pytest.raises(UserError, match=re.escape(message)):
        locate(source, folder=tmp_path, sha256=sha256)


def test_a_local_files_sum_is_checked(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT)
    assert locate(str(path), folder=tmp_path, sha256=SUM).sha256 == SUM
    assert locate(str(path), folder=tmp_path).sha256 is None
    with pytest.raises(UserError, match=f"its sha256 is {SUM}, expected"):
        locate(str(path), folder=tmp_path, sha256="a" * 64)


def test_processes_that_want_the_same_file_download_it_once(server, tmp_path):
    code = (
        "from fashion_hydra.utils.download import fetch; from pathlib import Path; "
        f"fetch({server.url()!r}, folder=Path('.'))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    started = [subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=environment) for _ in range(3)]
    assert [process.wait(timeout=60) for process in started] == [0, 0, 0]
    assert server.asked == [None]
    assert files(tmp_path) == ["weights.pth"]
