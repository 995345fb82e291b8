"""The detector; the only room that knows mmdet and mmcv, whose operators it puts in place before they are imported."""

from fashion_hydra.model.mmcv_ops import install

install()
