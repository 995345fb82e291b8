"""Files that the outside world reads and writes: CSV, submissions, COCO results, mask PNGs."""
