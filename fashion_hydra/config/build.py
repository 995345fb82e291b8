"""Config groups -> objects."""

from dataclasses import fields
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from fashion_hydra.utils.errors import UserError

T = TypeVar("T")


def build(kind: type[T], config: DictConfig, group: str, *, without: tuple[str, ...] = ()) -> T:
    """Make a frozen dataclass from a config group.

    Raises:
        UserError: a key that the group does not have, or one that is missing.
    """
    values: dict[str, Any] = {k: v for k, v in _plain(config).items() if k not in without}
    _refuse_unknown(values, [f.name for f in fields(kind)], group)  # type: ignore[arg-type]
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{group}: {error}") from error


def _refuse_unknown(values: dict[str, Any], known: list[str], group: str) -> None:
    if unknown := [key for key in values if key not in known]:
        raise UserError(f"{group}.{unknown[0]}: no such option; {group} has {', '.join(known)}")


def _plain(config: DictConfig) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
