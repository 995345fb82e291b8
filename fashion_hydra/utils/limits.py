"""What files may ask for at most, far above any real data, so that none can take all memory or all day.

iMaterialist's largest photo has 7 * 10^7 pixels, its fullest one 74 masks, and its train.csv 333,000 masks.
"""

import re

MOST_PIXELS = 2**27
"""Of an image, and of the frame of a mask: 134 million."""
LONGEST_EDGE = 2**16
"""Of both, in pixels."""
FRAME = f"at most {MOST_PIXELS} pixels and {LONGEST_EDGE} an edge"
"""Both, in words for messages."""
MOST_RUNS = 2**22
"""Of a mask: 4 million; and pixels along the outline of its polygons."""
MOST_MASKS = 2**12
"""Of an image."""
LONGEST_NAME = 1000
"""Of an image or a category, and of a ClassId with its attributes, in characters."""
LONGEST_LINE = 2**26
"""Of a CSV, in characters: 64 million; what a mask of so many runs takes."""
MOST_LINES = 2**24
"""Of a CSV: 16 million."""
MOST_PACKING = 200
"""How many times as large as the packed file a CSV may be; run-lengths reach four."""
LONGEST_JSON = 2**31
"""Of a JSON file, in bytes."""
MOST_FAULTS = 10**6
"""Of a data set: with more it is none."""
_NAME = re.compile(rf"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{{1,{LONGEST_NAME}}}")


def is_name(text: object) -> bool:
    """Whether this can name an image or a category: text, not too long, without control characters or half pairs."""
    return isinstance(text, str) and _NAME.fullmatch(text) is not None


def is_frame(height: int, width: int) -> bool:
    """Whether an image can have that size."""
    return 1 <= min(height, width) <= max(height, width) <= LONGEST_EDGE and height * width <= MOST_PIXELS
