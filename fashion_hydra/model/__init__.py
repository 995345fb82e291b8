"""The detector; the only room that knows mmdet and mmcv."""
