"""Tests, in folders that mirror the package's."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
SHARED = PROJECT.parent / "shared" / "data"
"""Real photos, where they lie beside a checkout; tests that need them skip without."""
