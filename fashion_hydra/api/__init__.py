"""Python API: `load` returns a `Predictor`, which returns `ImageDetections`."""
