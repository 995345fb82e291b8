"""One module per task: build objects from a config, run them, write files."""
