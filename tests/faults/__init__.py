"""Faults injected into whole runs: scripts that anyone can run."""
