import fashion_hydra.model  # noqa: F401 - puts the operators in place before a test imports mmcv or mmdet
