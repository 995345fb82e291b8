"""The frame of a training image: its file resized, cropped to a window, and flipped."""

from dataclasses import dataclass

import cv2
import numpy as np

from fashion_hydra.data.augment import Window
from fashion_hydra.structures.batch import Size


@dataclass(frozen=True)
class Frame:
    """Geometry of a training image: the file is resized, cropped to a window, and flipped, in this order.

    Args:
        old: height and width of the file, in which masks and boxes are drawn.
        new: height and width of the resized image; masks are resized by nearest neighbour.
        window: window cut out of the resized image; None for the whole image.
        flip: whether the window is flipped horizontally.
        sampling: see `fashion_hydra.data.augment.Augment.mask_sampling`.
    """

    old: Size
    new: Size
    window: Window | None = None
    flip: bool = False
    sampling: str = "centre"

    @property
    def cut(self) -> Window:
        """Window of the resized image; the whole image if there is none."""
        return self.window or (0, 0, self.new[1], self.new[0])

    @property
    def size(self) -> Size:
        """Height and width of the window."""
        x0, y0, x1, y1 = self.cut
        return y1 - y0, x1 - x0

    def resize(self, pixels: np.ndarray) -> np.ndarray:
        """Resize an image (H, W, 3) and cut out the window, without flipping it."""
        x0, y0, x1, y1 = self.cut
        return cv2.resize(pixels, (self.new[1], self.new[0]), interpolation=cv2.INTER_LINEAR)[y0:y1, x0:x1]

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Move boxes of the file (N, 4) to the frame, clipped to the window and flipped: float32 (N, 4)."""
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
        """Return which boxes of the file (N, 4) are partly or fully outside the window: bool (N,)."""
        if self.window is None:
            return np.zeros(len(boxes), dtype=bool)
        scale_y, scale_x = self.new[0] / self.old[0], self.new[1] / self.old[1]
        moved = boxes * np.array([scale_x, scale_y, scale_x, scale_y])
        x0, y0, x1, y1 = self.window
        return np.asarray((moved[:, :2] < (x0, y0)).any(1) | (moved[:, 2:] > (x1, y1)).any(1))
