"""Upper limits for input files, far above any real data, so that no file can exhaust memory or time.

iMaterialist: at most 7 * 10^7 pixels and 74 masks per photo; 333,000 masks in train.csv.
"""

import re

MOST_PIXELS = 2**27
"""Pixels of an image or of the frame of a mask: 134 million."""
LONGEST_EDGE = 2**16
"""Height or width of an image or of the frame of a mask, in pixels."""
FRAME = f"at most {MOST_PIXELS} pixels and {LONGEST_EDGE} per edge"
"""The limits of pixels and edges, in words for messages."""
MOST_RUNS = 2**22
"""Runs of a mask, and pixels along the outline of its polygons: 4 million."""
MOST_MASKS = 2**12
"""Masks of an image."""
LONGEST_NAME = 1000
"""Characters of the name of an image or a category, and of a ClassId with its attributes."""
LONGEST_LINE = 2**26
"""Characters of a line of a CSV: 64 million, enough for a mask of MOST_RUNS runs."""
MOST_LINES = 2**24
"""Lines of a CSV: 16 million."""
MOST_PACKING = 200
"""Size of a decompressed CSV divided by the size of its archive; run-lengths reach 4."""
LONGEST_JSON = 2**31
"""Bytes of a JSON file."""
MOST_FAULTS = 10**6
"""Faults of a data set or a submission."""
_NAME = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{LONGEST_NAME}}}")


def is_name(text: object) -> bool:
    """Return whether this can name an image or a category: a short text without control characters or surrogates."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_frame(height: int, width: int) -> bool:
    """Return whether an image can have this size."""
    return 1 <= min(height, width) <= max(height, width) <= LONGEST_EDGE and height * width <= MOST_PIXELS
