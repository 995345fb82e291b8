"""Compose options in Python, without a command line."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.config.entry_point import prepare_config
from fashion_hydra.config.places import CONF


def compose_config(name: str, *words: object, with_hydra: bool = False) -> DictConfig:
    """Return the config of a script for a command line.

    Args:
        name: `train`, `predict` or `tune`.
        words: overrides of the command line.
        with_hydra: whether to keep the group `hydra`.
    """
    prepare_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=[str(word) for word in words], return_hydra_config=with_hydra)


def compose_options(name: str, *words: object) -> Any:
    """Return the options of a script for a command line, as objects of its schema."""
    folder = [] if name == "train" else ["paths.output_dir=${out}"]  # a script's output_dir is Hydra's run folder
    return OmegaConf.to_object(compose_config(name, *folder, *words))
