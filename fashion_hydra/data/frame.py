"""Where a training image lies on its file: resized, a window cut out of it, mirrored."""

from dataclasses import dataclass

import cv2
import numpy as np

from fashion_hydra.data.augment import Window
from fashion_hydra.structures.batch import Size


@dataclass(frozen=True)
class Frame:
    """Where a training image lies on its file: resized, a window cut out, mirrored, in this order.

    Args:
        old: height and width of the file, in which masks and boxes are drawn.
        new: height and width that it is resized to; masks take the nearest neighbour.
        window: what is cut out of the resized image; None: all of it.
        flip: whether the window is mirrored left and right.
        sampling: see `fashion_hydra.data.augment.Augment.mask_sampling`.
    """

    old: Size
    new: Size
    window: Window | None = None
    flip: bool = False
    sampling: str = "centre"

    @property
    def cut(self) -> Window:
        """The window."""
        return self.window or (0, 0, self.new[1], self.new[0])

    @property
    def size(self) -> Size:
        """Height and width of the window."""
        x0, y0, x1, y1 = self.cut
        return y1 - y0, x1 - x0

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """The window of an image (H, W, 3), not mirrored yet."""
        x0, y0, x1, y1 = self.cut
        return cv2.resize(pixels, (self.new[1], self.new[0]), interpolation=cv2.INTER_LINEAR)[y0:y1, x0:x1]

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes of the file (N, 4), clipped to the window and mirrored with it: float32 (N, 4)."""
        scale_y, scale_x = self.new[0] / self.old[0], self.new[1] / self.old[1]
        moved = boxes.astype(np.float32) * np.array([scale_x, scale_y, scale_x, scale_y], np.float32)
        if self.window is not None:
            x0, y0, x1, y1 = self.window
            moved = (moved - np.array([x0, y0, x0, y0], np.float32)).clip(0, np.array([x1 - x0, y1 - y0] * 2))
            moved = moved.astype(np.float32)
        if self.flip:
            moved[:, [0, 2]] = self.size[1] - moved[:, [2, 0]]
        return moved

    def is_cut(self, boxes: np.ndarray) -> np.ndarray:
        """Whether the window's edge runs through boxes of the file (N, 4), or they lie outside: bool (N,)."""
        if self.window is None:
            return np.zeros(len(boxes), dtype=bool)
        scale_y, scale_x = self.new[0] / self.old[0], self.new[1] / self.old[1]
        moved = boxes * np.array([scale_x, scale_y, scale_x, scale_y])
        x0, y0, x1, y1 = self.window
        return np.asarray((moved[:, :2] < (x0, y0)).any(1) | (moved[:, 2:] > (x1, y1)).any(1))
