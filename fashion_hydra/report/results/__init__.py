"""The page about runs, thresholds and predictions."""
