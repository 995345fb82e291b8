"""Instance segmentation of clothes: Hydra configs, Lightning training, mmdet's Hybrid Task Cascade."""

__version__ = "0.1.0"
