"""One module a verb: config -> objects -> files."""
