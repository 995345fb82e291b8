"""Predict candidates with any number of models on any number of views."""
