"""Find the best postprocessing rule and test whether it is significantly better."""
