"""Atomic writes, locks between processes, checksums and JSON files."""

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fashion_hydra.utils.limits import LONGEST_JSON


@contextmanager
def atomic_write(path: Path, mode: str = "w", *, durable: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` after everything is written.

    Args:
        path: the final file; readers see either the old or the complete new content.
        mode: `w` for UTF-8 text without newline translation, or `wb`.
        durable: flush the file to disk before it replaces `path`, so that it survives a power failure.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with part.open(mode, **text) as stream:  # type: ignore[call-overload]
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def folder_beside(folder: Path) -> Iterator[Path]:
    """Create a temporary folder on the same disk, to be renamed to `folder` when complete; delete it otherwise."""
    parent = folder.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent))
    temporary.chmod(0o755)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process of this machine at a time write the file; others wait. The lock ends with its process."""
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's content, 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        ValueError: the file is not valid JSON, is too large, or is nested too deeply.
    """
    if (size := path.stat().st_size) > LONGEST_JSON:
        raise ValueError(f"{size} bytes, must be at most {LONGEST_JSON}")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
