"""Bytes of a fuzzer -> a damaged file of some kind.

Damage done to a packed or checksummed file at random is seen by its checksum, and nothing behind that is reached. So a
fuzzer's bytes may also say what to change within the parts, and the file is put together anew around them.
"""

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

EDIT = struct.Struct("<HHBB")  # two halves of a place, what to do, with what byte
RAW, EDITED = 0, 1


def edited(content: bytes, edits: bytes) -> bytes:
    """Content with bytes changed, put in, taken out, written twice or cut off; each edit has `EDIT.size` bytes."""
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
    """A whole file: the bytes themselves, or edits of a good one."""
    if len(data) < 2 or data[0] % 2 == RAW:
        return data[1:]
    return edited(seeds[data[1] % len(seeds)], data[2:])


def archive_of(data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A zip archive: like `file_of`, or edits of one part, in an archive whose checksums are right."""
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
