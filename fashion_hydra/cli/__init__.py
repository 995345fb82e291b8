"""The `fashion-hydra` console script, one module a command."""
