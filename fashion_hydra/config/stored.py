"""Read the options of a training run from its folder.

The options are data: code outside this package is imported for them only if the user trusts its package.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from fashion_hydra.config.build import READERS, make_datamodule, plain
from fashion_hydra.config.schema import AugmentConfig, ClassesConfig, DataConfig
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from fashion_hydra.utils.imports import check_trusted

_TRACKERS: dict[str, type[Logger]] = {
    "pytorch_lightning.loggers.WandbLogger": WandbLogger,
    "pytorch_lightning.loggers.TensorBoardLogger": TensorBoardLogger,
}


@dataclass(frozen=True)
class StoredRun:
    """A training run and its options.

    Args:
        run: folder of the run.
        config: options of the run; `paths.output_dir` is its current folder.
    """

    run: RunFolder
    config: DictConfig

    @classmethod
    def read(cls, run: RunFolder) -> "StoredRun | None":
        """Read the options of a run; None if the run has no saved config.

        Raises:
            UserError: the saved config is not that of a training run.
        """
        values = run.config()
        if not values:
            return None
        if not isinstance(values.get("data"), dict):
            raise UserError(f"{run.path}: its config is not that of a training run. Give a training run's folder")
        config = OmegaConf.create(values)
        OmegaConf.update(config, "paths.output_dir", str(run.path), force_add=True)
        OmegaConf.update(config, "name", run.path.parent.name, force_add=True)
        return cls(run, config)

    @property
    def root(self) -> str | None:
        """Data folder of the run."""
        return self._value("data.root")

    def datamodule(self, root: str | None, trusted: Sequence[str]) -> FashionDataModule:
        """Read the data that the run was trained on, with the split of the run.

        Args:
            root: current folder of the data, if it has moved.
            trusted: packages whose code the options may name.

        Raises:
            UserError: the data cannot be read, or reading them needs code that is not trusted.
        """
        data = self._group(DataConfig, "data", format=self._format())
        augment = self._group(AugmentConfig, "augment")
        named = [str(spec["_target_"]) for spec in augment.photometric if "_target_" in spec]
        named += [data.format] if data.format not in READERS else []
        for path in named:
            check_trusted(path, trusted, f"{self.run.path}: its config")
        data.root, data.split_file = root or data.root, str(self.run.split_file)
        scales = self._value("tta.scales")
        module = make_datamodule(
            data,
            self._group(ClassesConfig, "classes"),
            augment,
            eval_scale=[int(edge) for edge in scales[0]],
            attributes=bool(self._value("model.attributes")),
            seed=int(self._value("seed") or 0),
            report_dir=None,
        )
        module.read()
        return module

    def trackers(self) -> list[Logger]:
        """Return the loggers that the run was recorded with, to add to its record."""
        made = []
        for options in plain(
            OmegaConf.to_container(self.config.get("logger") or DictConfig({}), resolve=True)
        ).values():
            kind = _TRACKERS.get(str((options or {}).get("_target_")))
            if kind is not None:
                arguments = {key: value for key, value in options.items() if key != "_target_"}
                made.append(kind(**{**arguments, "save_dir": str(self.run.path)}))
        return made

    def _format(self) -> str:
        """Return the format of the data; runs from before `data.format` named a reader instead."""
        if (given := self._value("data.format")) is not None:
            return str(given)
        reader = str(self._value("data.source._target_") or "")
        return "coco" if reader.endswith(".CocoFile") else "kaggle"

    def _group(self, schema: type, group: str, **more: Any) -> Any:
        """Return a group's options as an object of its schema, without options that the schema no longer has."""
        try:
            kept = OmegaConf.select(self.config, group) or {}
            known = {field.name: kept[field.name] for field in fields(schema) if field.name in kept}
            return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), known, more))
        except OmegaConfBaseException as error:
            raise UserError(f"{self.run.path}: its config's {group} is not readable ({error})") from error

    def _value(self, key: str) -> Any:
        try:
            return OmegaConf.select(self.config, key)
        except OmegaConfBaseException as error:
            raise UserError(f"{self.run.path}: its config's {key} is not readable ({error})") from error
