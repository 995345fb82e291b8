"""The page about runs, thresholds and predictions: its parts, its template, its style and its script."""
