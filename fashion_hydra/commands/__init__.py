"""The commands of the `fashion-hydra` console script, one a file."""
