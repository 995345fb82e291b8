"""Models in Python: `load` gives a `Predictor`, which gives `ImageDetections`."""
