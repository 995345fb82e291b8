"""Tests, in folders that mirror the package."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared" / "data"
"""Real photos beside the checkout; tests that need them are skipped if the folder is missing."""
