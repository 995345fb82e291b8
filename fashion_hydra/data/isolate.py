"""Show one garment alone on a plain background, as photos of clothes that nobody wears do."""

from dataclasses import replace

import cv2
import numpy as np

from fashion_hydra.data.annotations import Annotations
from fashion_hydra.data.class_set import ClassSet
from fashion_hydra.data.copy_paste import lowest_below
from fashion_hydra.data.frame import Frame
from fashion_hydra.structures import rle
from fashion_hydra.structures.batch import Size

_SMALLEST = 48
"""Objects whose longer edge has fewer pixels in the file are not shown alone: enlarged, they would be blurred."""

_FILL = (0.5, 1.0)
"""Range of the share of the frame's width or height that the object fills."""

_LARGEST = 3.0
"""Maximum long edge of the resized image, in long edges of the frame; limits memory."""


def choose_group(annotations: Annotations, image: int, classes: ClassSet, rng: np.random.Generator) -> list[int]:
    """Choose one object of an image that lies on no other, and return it with all objects that lie on it.

    Args:
        annotations: data set with the objects.
        image: index of the image.
        classes: classes to learn; other objects are not chosen.
        rng: random generator.

    Returns:
        Indices of masks, the chosen object first; empty if no object is large enough.
    """
    label_of = classes.label_of()
    known = [m for m in annotations.instances(image) if int(annotations.categories[m]) in label_of]
    height, width = (int(edge) for edge in annotations.sizes[image])
    below = lowest_below([rle.runs_to_coco(annotations.runs_of(m), height=height, width=width) for m in known])
    edges = (annotations.boxes[known, 2:] - annotations.boxes[known, :2]).max(axis=1, initial=0)
    lowest = np.flatnonzero((below == np.arange(len(known))) & (edges >= _SMALLEST))
    if not len(lowest):
        return []
    chosen = int(rng.choice(lowest))
    return [known[chosen], *(known[i] for i in np.flatnonzero(below == chosen) if i != chosen)]


def enlarge(frame: Frame, box: np.ndarray, rng: np.random.Generator) -> Frame:
    """Return the frame that shows only a box, enlarged to fill half or more of another frame if it is not too small.

    Args:
        frame: frame of the whole image; gives the size to fill, the flip and the sampling of masks.
        box: (4,), in pixels of the file.
        rng: random generator.
    """
    x0, y0, x1, y1 = (int(edge) for edge in box)
    height, width = frame.size
    scale = min(height / (y1 - y0), width / (x1 - x0)) * float(rng.uniform(*_FILL))
    scale = min(scale, _LARGEST * max(frame.size) / max(frame.old))
    new = (max(1, round(frame.old[0] * scale)), max(1, round(frame.old[1] * scale)))
    scale_y, scale_x = new[0] / frame.old[0], new[1] / frame.old[1]
    window = int(x0 * scale_x), int(y0 * scale_y), int(np.ceil(x1 * scale_x)), int(np.ceil(y1 * scale_y))
    return replace(frame, new=new, window=window)


def draw_background(size: Size, rng: np.random.Generator) -> np.ndarray:
    """Draw a random, mostly greyish colour with soft, uneven light and some grain: uint8 (H, W, 3)."""
    height, width = size
    light = cv2.resize(rng.normal(0, 12, (4, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, rng.uniform(0, 10), (height, width)).astype(np.float32)
    grey, saturation = rng.uniform(40, 250), rng.uniform() ** 2  # most floors, walls and tables are pale or grey
    colour = (grey + saturation * (rng.uniform(0, 255, 3) - grey)).astype(np.float32)
    return np.clip(colour + (light + grain)[..., None], 0, 255).astype(np.uint8)
