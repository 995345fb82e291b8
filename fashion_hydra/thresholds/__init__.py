"""Thresholds found from candidates and truth, without a model: exactly what predicting with them would score."""
