"""Turn a fuzzer's bytes into a damaged file of some kind.

Random damage to a compressed or checksummed file is caught by its checksum, so no code behind the check is reached.
Therefore a fuzzer's bytes can also encode edits of the parts, and the file is assembled again around the edited parts.
"""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

EDIT = struct.Struct("<HHBB")  # position in two halves, operation, byte
RAW, EDITED = 0, 1


def edited(content: bytes, edits: bytes) -> bytes:
    """Change, insert, remove, duplicate or truncate bytes of `content`; each edit has `EDIT.size` bytes."""
    changed = bytearray(content)
    for begin in range(0, len(edits) - EDIT.size + 1, EDIT.size):
        high, low, action, value = EDIT.unpack_from(edits, begin)
        place = (high << 16 | low) % (len(changed) + 1)
        match action % 8:
            case 0 | 1:
                changed[place : place + 1] = bytes([value])
            case 2:
                changed[place : place + 1] = bytes(b ^ (1 << value % 8) for b in changed[place : place + 1])
            case 3:
                changed[place:place] = bytes([value])
            case 4:
                del changed[place : place + 1 + value % 16]
            case 5:
                changed[place:place] = changed[value * 4 : value * 4 + 16]
            case 6:
                changed[place : place + 4] = b"\xff" * 4
            case 7:
                del changed[place:]
    return bytes(changed)


def file_of(data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Return a complete file: the fuzzer's bytes themselves, or an edited valid file."""
    if len(data) < 2 or data[0] % 2 == RAW:
        return data[1:]
    return edited(seeds[data[1] % len(seeds)], data[2:])


def archive_of(data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Return a zip archive: as in `file_of`, or with one part edited and correct checksums."""
    archives = [seed for seed in seeds if zipfile.is_zipfile(io.BytesIO(seed))]
    if len(data) < 4 or data[0] % 3 < 2:
        return file_of(data, seeds)
    parts = parts_of(archives[data[1] % len(archives)])
    name = sorted(parts)[data[2] % len(parts)]
    return zipped({**parts, name: edited(parts[name], data[3:])})


def parts_of(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def zipped(parts: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return stream.getvalue()
