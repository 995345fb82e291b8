"""Options without a command line."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from fashion_hydra.config.entry_point import prepare_config
from fashion_hydra.config.places import CONF


def compose_config(name: str, *words: object, with_hydra: bool = False) -> DictConfig:
    """Return the config that a script's command line gives.

    Args:
        name: `train`, `predict` or `tune`.
        words: of the command line.
        with_hydra: keep the group `hydra`.
    """
    prepare_config()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, overrides=[str(word) for word in words], return_hydra_config=with_hydra)


def compose_options(name: str, *words: object) -> Any:
    """Return the options, as objects of the schema, that a script's command line gives."""
    folder = [] if name == "train" else ["paths.output_dir=${out}"]  # Hydra's, which runs a script there
    return OmegaConf.to_object(compose_config(name, *folder, *words))
