"""Paths of configs, scripts and released models, in a checkout or in the installed package."""

from pathlib import Path

INSTALLED = Path(__file__).resolve().parents[1] / "_project"
"""Folder of their copies in a wheel, written by setup.py."""
PROJECT_ROOT = INSTALLED if INSTALLED.is_dir() else Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
VERBS = {"train": "train.py", "tune": "tune_thresholds.py", "predict": "predict.py"}
"""Command of `fashion-hydra` -> name of its script in a checkout."""
