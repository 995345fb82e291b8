"""What files may ask for at most, far above any real data, so that none can take all memory or all day.

iMaterialist's largest photo has 7 * 10^7 pixels, its fullest one 74 masks, and its train.csv 333,000 masks.
"""

MOST_PIXELS = 2**27
"""Of an image, and of the frame of a mask: 134 million."""
LONGEST_EDGE = 2**16
"""Of both, in pixels."""
MOST_RUNS = 2**22
"""Of a mask: 4 million. Points of a mask's polygons likewise."""
