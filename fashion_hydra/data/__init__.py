"""Annotated images -> batches."""
