"""File formats of other tools: CSV, submissions, COCO results, mask PNGs."""
