"""HTML pages about results and data sets."""
