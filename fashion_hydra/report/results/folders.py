"""What a folder is, by what lies in it."""

from pathlib import Path

from fashion_hydra.utils.errors import UserError

KINDS = ("ladder", "tuning", "prediction", "training")


def kinds_of(folder: Path) -> list[str]:
    """Which of `KINDS` a folder is, by what is in it.

    Raises:
        UserError: it is none.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give folders of runs/, tuned/, predictions/ or a ladder")
    signs = {
        "ladder": (folder / "ladder.csv").is_file(),
        "tuning": (folder / "methods.csv").is_file(),
        "prediction": (folder / "submission.csv").is_file(),
        "training": any(folder.glob("csv/version_*/metrics.csv")),
    }
    if found := [kind for kind in KINDS if signs[kind]]:
        return found
    if (folder / "candidates" / "manifest.json").is_file():
        raise UserError(f"{folder}: candidates without submission.csv. Run predict.py out={folder} output=csv again")
    there = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{folder}: not a folder that can be reported (found: {there}). It holds none of csv/version_*/metrics.csv (a "
        "training run), methods.csv (tuning), submission.csv (a prediction), ladder.csv (a ladder)"
    )
