"""Containers of boxes and masks and the encodings of masks, without I/O."""
