"""The `fashion-hydra` console script, one module per command."""
