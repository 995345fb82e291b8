"""The built-in data set: dressed figures drawn from a seed, with their masks, in Kaggle's layout."""

from fashion_hydra.wardrobe.writer import Summary, write_wardrobe

__all__ = ["Summary", "write_wardrobe"]
