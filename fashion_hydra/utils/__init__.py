"""Helpers without image code: errors and their messages, files, limits, downloads."""
