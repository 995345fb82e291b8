"""Tell the kind of a folder from its files."""

from pathlib import Path

from fashion_hydra.utils.errors import UserError

KINDS = ("ladder", "tuning", "prediction", "training")


def kinds_of(folder: Path) -> list[str]:
    """Return the entries of `KINDS` that apply to a folder, judging by its files.

    Raises:
        UserError: the folder does not exist, or no kind applies.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder. Give folders below runs/, tuned/ or predictions/, or a ladder")
    signs = {
        "ladder": (folder / "ladder.csv").is_file(),
        "tuning": (folder / "methods.csv").is_file(),
        "prediction": (folder / "submission.csv").is_file(),
        "training": any(folder.glob("csv/version_*/metrics.csv")),
    }
    if found := [kind for kind in KINDS if signs[kind]]:
        return found
    if (folder / "candidates" / "manifest.json").is_file():
        raise UserError(f"{folder}: has candidates but no submission.csv. Run predict.py out={folder} output=csv again")
    there = ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8]) or "nothing"
    raise UserError(
        f"{folder}: nothing to report (found: {there}). Give a folder with csv/version_*/metrics.csv (a training run), "
        "methods.csv (tuning), submission.csv (a prediction) or ladder.csv (a ladder)"
    )
