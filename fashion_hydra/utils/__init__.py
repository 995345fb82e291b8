"""Helpers that know nothing of images: errors and their messages, files, limits, downloads."""
