"""Containers for boxes and masks, and mask encodings; no I/O."""
