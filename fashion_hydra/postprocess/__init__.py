"""Candidates -> detections, by a rule of thresholds."""
