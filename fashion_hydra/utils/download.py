"""Download files by URL: resume interrupted downloads, verify checksums, and move complete files into place."""

import hashlib
import http.client
import json
import os
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit

from tqdm import tqdm

from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.files import atomic_write, file_lock, file_sha256

_BLOCK = 1 << 20  # bytes
_TIMEOUT = 60.0  # seconds without an answer
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# torch.hub and OpenMMLab append the first digits of the sha256: `name-946fd751.pth`. A date is not a hash.
_HASH_IN_NAME = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8})\.[a-z]+$")


@dataclass(frozen=True)
class Located:
    """A file on this machine.

    Args:
        path: path of the file.
        sha256: sha256 of the content; None for a local file that no sha256 was given for.
    """

    path: Path
    sha256: str | None


def locate(source: str, *, folder: Path, sha256: str | None = None) -> Located:
    """Return the local file for a path or a URL; a URL is downloaded once.

    Args:
        source: a path, or an http or https URL.
        folder: folder of the downloads.
        sha256: expected sha256 of the content, 64 hexadecimal digits.

    Raises:
        UserError: the file does not exist, the download fails, or the sha256 differs.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UserError(f"sha256={sha256}: must be 64 hexadecimal digits, as `sha256sum FILE` prints them")
    if is_address(source):
        path = fetch(source, folder=folder, sha256=sha256)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise UserError(f"{source}: no such file. Give a file, or a URL with http:// or https://")
        if sha256 is None:
            return Located(path, None)
    found = file_sha256(path)
    if sha256 is not None and found != sha256.lower():
        raise UserError(
            f"{path}: its sha256 is {found}, expected {sha256.lower()}. Remove the file, or correct the checksum"
        )
    return Located(path, found)


def fetch(url: str, *, folder: Path, sha256: str | None = None) -> Path:
    """Download a file unless it exists; of several processes, one downloads and the others wait.

    Args:
        url: http or https URL of the file.
        folder: folder of the downloads; each URL gets its own subfolder.
        sha256: expected sha256 of a new download; without it, the digits in the file name are checked, if any.

    Raises:
        UserError: the server does not respond or does not send the file; a partial download is kept to be resumed.
    """
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise UserError(f"{url}: only http:// and https:// URLs can be downloaded. Give such a URL, or a file")
    target = download_path(url, folder)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target):
            if not target.is_file():
                part = target.with_name(f"{target.name}.part")
                transfer = _Transfer(url, part)
                transfer.run()
                _check(part, url, sha256)
                os.replace(part, target)
                transfer.note.unlink()
    except PermissionError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}). Choose another folder with FASHION_HYDRA_CACHE"
        ) from error
    return target


def is_address(text: str) -> bool:
    """Return whether a text is a URL rather than a path."""
    return _ADDRESS.match(text) is not None


def download_path(url: str, folder: Path) -> Path:
    """Return the path below `folder` for a URL's file; a file that exists there is not downloaded again."""
    name = Path(unquote(urlsplit(url).path)).name
    return folder / hashlib.sha256(url.encode()).hexdigest()[:12] / (name if name not in ("", "..") else "file")


def _check(part: Path, url: str, sha256: str | None) -> None:
    """Delete the download and raise `UserError` unless it has the given sha256, or else the digits in its name."""
    hash_in_name = _HASH_IN_NAME.search(urlsplit(url).path)
    expected = sha256.lower() if sha256 else hash_in_name[1] if hash_in_name else ""
    found = file_sha256(part)
    if not found.startswith(expected):
        part.unlink()
        kind = f"{expected}" if sha256 else f"{expected}... (from the file name)"
        raise UserError(
            f"{url}: checksum mismatch: downloaded sha256 {found}, expected {kind}. The download was deleted; retry "
            "or use another URL"
        )


class _Transfer:
    """The download of one file into its `.part` file.

    A note beside the part stores the server's headers of the file, so that a retry notices a changed file.
    """

    def __init__(self, url: str, part: Path) -> None:
        self.url, self.part = url, part
        self.note = part.with_name(f"{part.name}.json")

    def run(self) -> None:
        """Download the part completely, resuming it if possible."""
        try:
            if not self._complete() and not self._resume():
                self._begin()
        except HTTPError as error:
            raise UserError(f"{self.url}: the server answers {error.code} {error.reason}{self._kept()}") from error
        except (URLError, OSError, http.client.HTTPException) as error:
            if isinstance(error, PermissionError):
                raise
            reason = getattr(error, "reason", None) or error
            raise UserError(f"{self.url}: {reason or type(error).__name__}{self._kept()}") from error

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _noted(self) -> dict[str, str]:
        try:
            return json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _complete(self) -> bool:
        return self._have() > 0 and self._noted().get("length") == str(self._have())

    def _kept(self) -> str:
        have, total = self._have(), self._noted().get("length")
        if not have:
            return ". Nothing was downloaded; check the URL and the connection"
        of = f" of {int(total)}" if total else ""
        return f". {have}{of} bytes are kept in {self.part}; repeat the command to resume"

    def _resume(self) -> bool:
        """Resume the part; return False if there is no part, the server has no ranges, or the file has changed."""
        have, noted = self._have(), self._noted()
        if not have or not noted:
            return False
        headers = {"Range": f"bytes={have}-"}
        # If-Range allows strong tags only (RFC 9110, 13.1.5); without one, the length is compared below.
        if (mark := noted.get("etag") or noted.get("modified")) and not mark.startswith("W/"):
            headers["If-Range"] = mark
        try:
            answer = self._open(headers)
        except HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            return False
        with answer:
            if answer.status == http.client.OK:  # the whole file: ranges are not supported, or the file has changed
                self._receive(answer, have=0)
                return True
            span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
            now = _file_identity(answer.headers)
            same = span is not None and int(span[1]) == have and span[2] in (noted.get("length"), "*")
            if not same or any(now[key] != noted.get(key) for key in ("etag", "modified") if now[key]):
                return False
            self._receive(answer, have=have)
        return True

    def _begin(self) -> None:
        self.part.unlink(missing_ok=True)
        with self._open({}) as answer:
            self._receive(answer, have=0)

    def _open(self, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        request = urllib.request.Request(self.url, headers={"User-Agent": "fashion-hydra", **headers})
        return _opener().open(request, timeout=_TIMEOUT)

    def _receive(self, answer: http.client.HTTPResponse, *, have: int) -> None:
        """Append the response to the first `have` bytes of the part."""
        if answer.headers.get_content_type() == "text/html":
            raise UserError(f"{self.url}: the server sends a web page, not a file. Give the URL of the file itself")
        if not have:
            with atomic_write(self.note) as stream:
                json.dump(_file_identity(answer.headers), stream)
        length = self._noted().get("length")
        with (
            self.part.open("ab" if have else "wb") as stream,
            tqdm(
                desc=self.part.stem, total=int(length) if length else None, initial=have, unit="B", unit_scale=True,
                disable=None,
            ) as bar,
        ):  # fmt: skip
            while block := answer.read(_BLOCK):
                stream.write(block)
                bar.update(len(block))
        if length and self._have() != int(length):
            raise http.client.HTTPException("the connection ended early")


def _file_identity(headers: Message) -> dict[str, str]:
    """Return the headers that identify the file that a server sends."""
    length = headers.get("Content-Length", "")
    return {"etag": headers.get("ETag", ""), "modified": headers.get("Last-Modified", ""), "length": length}


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https only, so that no redirect leads to a local file or to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener
