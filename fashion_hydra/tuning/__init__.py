"""The best postprocessing rule, and whether it is really better."""
