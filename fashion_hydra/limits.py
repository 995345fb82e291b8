"""What files may ask for at most, far above any real data, so that none can take all memory or all day.

iMaterialist's largest photo has 7 * 10^7 pixels, its fullest one 74 masks, and its train.csv 333,000 masks.
"""

MOST_PIXELS = 2**27
"""Of an image, and of the frame of a mask: 134 million."""
LONGEST_EDGE = 2**16
"""Of both, in pixels."""
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


def is_name(text: object) -> bool:
    """Whether this can name an image or a category: text, not too long, without control characters or half pairs."""
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST_NAME:
        return False
    return not any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)


def is_frame(height: int, width: int) -> bool:
    """Whether an image can have that size."""
    return 1 <= min(height, width) <= max(height, width) <= LONGEST_EDGE and height * width <= MOST_PIXELS
