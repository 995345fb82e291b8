"""The detector and the only package that imports mmdet and mmcv; on import, it installs mmcv's operators."""

from fashion_hydra.model.mmcv_ops import install

install()
