"""`fashion-hydra app`: a browser page to try a model on photos."""
