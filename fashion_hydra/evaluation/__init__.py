"""Evaluate predictions: the competition score, COCO AP, kinds of errors, intervals."""
