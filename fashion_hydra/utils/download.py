"""Files by address: resumed where they stopped, checked, and in their place only when whole."""

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
# `name-946fd751.pth`: torch.hub's and OpenMMLab's custom, the first digits of the sha256; a date is none.
_HASH_IN_NAME = re.compile(r"-(?!20\d{6}\.)([0-9a-f]{8})\.[a-z]+$")


@dataclass(frozen=True)
class Located:
    """A file on this machine.

    Args:
        path: where it is.
        sha256: of its content, where it was downloaded or was to be checked.
    """

    path: Path
    sha256: str | None


def locate(source: str, *, folder: Path, sha256: str | None = None) -> Located:
    """The file behind a path or an address.

    Args:
        source: a path, or an http or https address, which is downloaded once.
        folder: where downloads are kept.
        sha256: what the content must have, 64 hexadecimal digits.

    Raises:
        UserError: no such file, an address that does not answer, or another content.
    """
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise UserError(f"sha256={sha256}: 64 hexadecimal digits expected, as `sha256sum FILE` prints them")
    if is_address(source):
        path = fetch(source, folder=folder, sha256=sha256)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise UserError(f"{source}: no such file. Give a file, or an address with http:// or https://")
        if sha256 is None:
            return Located(path, None)
    found = file_sha256(path)
    if sha256 is not None and found != sha256.lower():
        raise UserError(
            f"{path}: its sha256 is {found} instead of {sha256.lower()}. Remove the file, or correct the sum"
        )
    return Located(path, found)


def fetch(url: str, *, folder: Path, sha256: str | None = None) -> Path:
    """Download a file, unless it is there already; several processes do so once.

    Args:
        url: its http or https address.
        folder: where it is kept, in a folder of the address's own.
        sha256: what a new download must have; without it, the digits in the name, if any.

    Raises:
        UserError: the server does not answer, or not with the file; what has come stays for the next try.
    """
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise UserError(f"{url}: only http:// and https:// addresses are downloaded. Give one of those, or a file")
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
            f"{folder}: cannot be written ({error.strerror}). Name another with FASHION_HYDRA_CACHE"
        ) from error
    return target


def is_address(text: str) -> bool:
    """Return whether a text is an address rather than a path."""
    return _ADDRESS.match(text) is not None


def download_path(url: str, folder: Path) -> Path:
    """Return where the file of an address is kept below `folder`; one that lies there already is not downloaded."""
    name = Path(unquote(urlsplit(url).path)).name
    return folder / hashlib.sha256(url.encode()).hexdigest()[:12] / (name if name not in ("", "..") else "file")


def _check(part: Path, url: str, sha256: str | None) -> None:
    """Raise `UserError`, and remove what came, unless it has the sum that was asked for or that its name tells."""
    hash_in_name = _HASH_IN_NAME.search(urlsplit(url).path)
    expected = sha256.lower() if sha256 else hash_in_name[1] if hash_in_name else ""
    found = file_sha256(part)
    if not found.startswith(expected):
        part.unlink()
        kind = f"{expected}" if sha256 else f"{expected}..., which its name tells"
        raise UserError(
            f"{url}: what came has the sha256 {found} instead of {kind}, and was removed. Try again, or another address"
        )


class _Transfer:
    """One file's way into its part file.

    Beside the part lies a note of what the server said of the whole file, so that a later try notices another file.
    """

    def __init__(self, url: str, part: Path) -> None:
        self.url, self.part = url, part
        self.note = part.with_name(f"{part.name}.json")

    def run(self) -> None:
        """Bring the part to its full length."""
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
            return ". Nothing was kept; check the address and the connection"
        of = f" of {int(total)}" if total else ""
        return f". {have}{of} bytes are kept in {self.part}; repeat the command to resume"

    def _resume(self) -> bool:
        """Go on from the part; False where there is none, or where the server cannot or has another file now."""
        have, noted = self._have(), self._noted()
        if not have or not noted:
            return False
        headers = {"Range": f"bytes={have}-"}
        # Only a strong tag may be compared so (RFC 9110, 13.1.5); without one the length below decides.
        if (mark := noted.get("etag") or noted.get("modified")) and not mark.startswith("W/"):
            headers["If-Range"] = mark
        try:
            answer = self._open(headers)
        except HTTPError as error:
            if error.code != http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise
            return False
        with answer:
            if answer.status == http.client.OK:  # no ranges, or not of this file
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
        """Append what the server sends to the first `have` bytes."""
        if answer.headers.get_content_type() == "text/html":
            raise UserError(f"{self.url}: the server sends a web page, not a file. Give the address of the file itself")
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
    """What identifies the file that a server sends."""
    length = headers.get("Content-Length", "")
    return {"etag": headers.get("ETag", ""), "modified": headers.get("Last-Modified", ""), "length": length}


def _opener() -> urllib.request.OpenerDirector:
    """http and https alone, so that no redirection leads to a file or to ftp."""
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
