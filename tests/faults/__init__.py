"""Faults injected into runs: scripts that anyone can run."""
