import fashion_hydra.model  # noqa: F401 - installs the operators before a test imports mmcv or mmdet
