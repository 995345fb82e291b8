"""`fashion-hydra app`: a page in the browser to try a model on photos."""
