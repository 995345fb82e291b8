"""Turn candidates into detections under a rule of thresholds."""
