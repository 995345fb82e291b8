"""Find the released models in models/, which `checkpoint=` and `weights=` accept by name."""

from pathlib import Path

from fashion_hydra.config.places import PROJECT_ROOT

MODELS = PROJECT_ROOT / "models"


def released_models() -> list[str]:
    """Return the names of the models that are released with the project."""
    return sorted(path.stem for path in MODELS.glob("*.safetensors"))


def find_released(given: str) -> Path | None:
    """Return the file of a released model; None if `given` does not name a released model, or is an existing path."""
    if given not in released_models() or Path(given).exists():
        return None
    return MODELS / f"{given}.safetensors"
