"""Where configs, scripts and released models lie: in a checkout, or inside the installed package."""

from pathlib import Path

INSTALLED = Path(__file__).resolve().parents[1] / "_project"
"""Where setup.py puts copies of them in a wheel."""
PROJECT_ROOT = INSTALLED if INSTALLED.is_dir() else Path(__file__).resolve().parents[2]
CONF = PROJECT_ROOT / "conf"
VERBS = {"train": "train.py", "tune": "tune_thresholds.py", "predict": "predict.py"}
"""Command of `fashion-hydra` -> the script that it is in a checkout."""
