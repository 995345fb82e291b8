"""The LightningDataModule, which reads annotations, splits the images and provides data loaders."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from fashion_hydra.data.annotation_cache import AnnotationReader, attribute_names, load_annotations
from fashion_hydra.data.annotations import Annotations, DataFault, describe_faults, write_faults
from fashion_hydra.data.attribute_set import AttributeSet, attribute_set_of
from fashion_hydra.data.augment import Augment
from fashion_hydra.data.class_set import ClassSet, ClassSpec
from fashion_hydra.data.dataset import EvalDataset, TrainDataset, collate
from fashion_hydra.data.joined_reader import JoinedReader
from fashion_hydra.data.sampler import AspectBatchSampler, repeat_factors
from fashion_hydra.data.split import UNUSED, read_split, stratified_folds, write_split
from fashion_hydra.structures.batch import Batch
from fashion_hydra.utils.errors import UserError


class FashionDataModule(LightningDataModule):
    """Images and masks of a data folder, split into training, validation and test images.

    Args:
        root: data folder.
        annotations: file with the masks; None for train.csv in `root`.
        val_annotations: file with the validation images; None to split the images of `annotations`.
        reader: makes a reader from root and file, such as `fashion_hydra.data.kaggle.KaggleReader`.
        classes: categories to learn.
        augment: augmentation of training images.
        eval_scale: short edge and maximum long edge of validation images, in pixels.
        folds: number of folds into which the images are split.
        fold: fold used for validation.
        test_fold: fold used neither for training nor for validation, so that thresholds tuned on validation images can
            be scored on unseen images; None for no test fold.
        split_seed: seed of the split.
        split_file: CSV with each image's fold, used instead of a stratified split.
        batch_size: images per device and step.
        num_workers: loader processes per device.
        repeat_threshold: classes in a smaller share of the training images are shown more often, see
            `repeat_factors`; None to show every image once per epoch.
        attributes: whether to learn the masks' attributes too.
        seed: seed of image order and augmentation.
        on_fault: `drop` images and rows with faults, or stop with an `error`.
        report_dir: folder to which the split and the faults are written.
    """

    def __init__(
        self,
        root: str,
        *,
        annotations: str | None,
        val_annotations: str | None = None,
        reader: Callable[[str, str | None], AnnotationReader],
        classes: ClassSpec,
        augment: Augment,
        eval_scale: tuple[int, int],
        folds: int,
        fold: int,
        test_fold: int | None = None,
        split_seed: int,
        split_file: str | None,
        batch_size: int,
        num_workers: int,
        repeat_threshold: float | None = None,
        attributes: bool = False,
        seed: int,
        on_fault: str,
        report_dir: Path | None = None,
    ) -> None:
        super().__init__()
        if on_fault not in ("drop", "error"):
            raise UserError(f"data.on_fault={on_fault}: give drop or error")
        if repeat_threshold is not None and not 0 < repeat_threshold <= 1:
            raise UserError(f"data.repeat_threshold={repeat_threshold}: must be null, or a share of the images above 0")
        if batch_size < 1 or num_workers < 0:
            raise UserError(
                f"data.batch_size={batch_size} data.num_workers={num_workers}: the first must be at least 1, "
                "the second at least 0"
            )
        if not 0 <= fold < folds:
            raise UserError(f"data.fold={fold}: must be between 0 and {folds - 1} (data.folds={folds})")
        if test_fold is not None and (test_fold == fold or not 0 <= test_fold < folds):
            raise UserError(
                f"data.test_fold={test_fold}: must be null, or between 0 and {folds - 1} and not data.fold={fold}"
            )
        self.repeat_threshold, self.attributes = repeat_threshold, attributes
        self.root, self.make_reader = root, reader
        self.annotation_file, self.val_annotation_file = annotations, val_annotations
        self.spec, self.augment, self.eval_scale = classes, augment, eval_scale
        self.folds, self.fold, self.test_fold = folds, fold, test_fold
        self.split_seed, self.split_file = split_seed, split_file
        self.batch_size, self.num_workers, self.seed, self.on_fault = batch_size, num_workers, seed, on_fault
        self.report_dir = report_dir
        self.faults: list[DataFault] = []
        self._annotations: Annotations | None = None
        self._done = (0, 0)

    def read(self) -> ClassSet:
        """Read and split the folder on the first call; return the class set, which defines the model's outputs.

        Raises:
            UserError: the folder is unusable, or has faults and `on_fault` is `error`.
        """
        if self._annotations is None:
            reader = self._reader()
            self._annotations, self.faults = load_annotations(reader)
            self._refuse_faults()
            present = np.unique(self._annotations.categories).tolist()
            self.classes = self.spec.resolve(self._annotations.names, present)
            self.fold_of = self._split(self._annotations)
            self.is_validation = self.fold_of == self.fold
            is_kept = self.test_fold is not None
            self.is_test = self.fold_of == self.test_fold if is_kept else np.zeros(len(self.fold_of), dtype=bool)
            self.is_training = ~self.is_validation & ~self.is_test & (self.fold_of != UNUSED)
            self._refuse_nothing(self._annotations)
            if self.attributes:
                self.classes = replace(self.classes, attributes=self._attribute_set(attribute_names(reader)))
        return self.classes

    def _reader(self) -> AnnotationReader:
        train = self.make_reader(self.root, self.annotation_file)
        if self.val_annotation_file is None:
            return train
        return JoinedReader({"val": self.make_reader(self.root, self.val_annotation_file), "train": train})

    def _refuse_faults(self) -> None:
        """Raise `UserError` if `on_fault` is `error` and there are faults; remarks do not count."""
        faults = [fault for fault in self.faults if not fault.is_remark]
        if faults and self.on_fault == "error":
            raise UserError(
                f"{self.root}: {len(faults)} faults, the first {faults[0]}. Fix them or set data.on_fault=drop; "
                "`fashion-hydra check` lists them"
            )

    def _refuse_nothing(self, annotations: Annotations) -> None:
        """Raise `UserError` if there is nothing to train on or nothing to validate with."""
        if not (self.is_validation.any() and self.is_training.any()):
            raise UserError(
                f"data.fold={self.fold}: {self.is_training.sum()} images to train on and "
                f"{self.is_validation.sum()} to validate with; at least one of each is required"
            )
        learnt = np.isin(annotations.categories, self.classes.ids)
        has_mask = np.bincount(annotations.owners()[learnt], minlength=len(annotations)) > 0
        about = describe_faults(self.faults)
        if not (has_mask & self.is_training).any():
            raise UserError(
                f"{self.root}: none of the {self.is_training.sum()} training images has a mask of a class to "
                f"learn ({self.spec.name}); {about}"
            )
        if not (has_mask & self.is_validation).any():
            raise UserError(
                f"{self.root}: none of the {self.is_validation.sum()} validation images has a mask of a class to "
                f"learn ({self.spec.name}), so there is nothing to score. Set another data.fold, or add images; "
                f"{about}"
            )

    def _attribute_set(self, names: Mapping[int, str]) -> AttributeSet:
        """Return the attributes of the training images' masks."""
        learnt = self.annotations.class_ids[self.is_training[self.annotations.owners()]]
        found = attribute_set_of(map(str, learnt), self.classes.label_of(), names)
        if not found:
            raise UserError(
                f"model.attributes=true: none of the {len(learnt)} training masks of {self.root} has an attribute. "
                "Leave model.attributes out"
            )
        return found

    def _split(self, annotations: Annotations) -> np.ndarray:
        if self.split_file is None and (annotations.subsets == "val").any():
            return self._own_split(annotations)
        if self.split_file is None:
            return stratified_folds(annotations.category_table(), folds=self.folds, seed=self.split_seed)
        left_out = frozenset(fault.image_id for fault in self.faults)
        return read_split(Path(self.split_file), annotations.image_ids, left_out=left_out)

    def _own_split(self, annotations: Annotations) -> np.ndarray:
        """Return the folds by the data set's own subsets; its test images are used only with `test_fold`."""
        trains = next(number for number in range(3) if number not in (self.fold, self.test_fold))
        tests = UNUSED if self.test_fold is None else self.test_fold
        return np.select([annotations.subsets == "val", annotations.subsets == "test"], [self.fold, tests], trains)

    @property
    def annotations(self) -> Annotations:
        """The annotations found by `read`."""
        assert self._annotations is not None, "call read() first"
        return self._annotations

    def state_dict(self) -> dict[str, int]:
        """Return the position in the epoch, and what determines the order of its images."""
        assert self.trainer is not None
        loop = self.trainer.fit_loop
        epochs: Any = loop.epoch_progress.current
        batches = loop.epoch_loop.batch_progress
        is_within = epochs.processed == epochs.completed
        return {
            "epoch": epochs.processed,
            "batches": batches.current.ready if is_within else 0,
            "epoch_ended": int(batches.is_last_batch),
            "batch": self.batch_size * self.trainer.world_size,
            "images": int(self.is_training.sum()),
        }

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Resume from a checkpoint.

        Raises:
            UserError: the checkpoint is from within an epoch with different batches.
        """
        assert self.trainer is not None
        batch, images = self.batch_size * self.trainer.world_size, int(self.is_training.sum())
        done, whole = state_dict["batches"], math.ceil(state_dict["images"] / state_dict["batch"])
        has_ended = bool(state_dict.get("epoch_ended", done >= whole)) and done > 0
        # A finished epoch is not continued, even if it would have more batches with this run's options.
        self._done = state_dict["epoch"], sys.maxsize if has_ended else done
        within = done > 0 and not has_ended
        if within and (batch, images) != (state_dict["batch"], state_dict["images"]):
            raise UserError(
                f"the checkpoint is from within an epoch of {state_dict['images']} images with {state_dict['batch']} "
                f"per step; this run has {images} with {batch} per step (data.batch_size x trainer.devices). Use the "
                "same numbers, or resume from a checkpoint written at the end of an epoch (ckpt_path=.../epoch*.ckpt)"
            )

    def prepare_data(self) -> None:
        """Write the split and the faults to the run folder, once per machine."""
        self.read()
        if self.report_dir is None:
            return
        self.report_dir.mkdir(parents=True, exist_ok=True)
        write_split(self.report_dir / "split.csv", self.annotations.image_ids, self.fold_of)
        write_faults(self.report_dir / "faults.csv", self.faults)

    def setup(self, stage: str) -> None:
        """Read the data in every process."""
        self.read()

    def describe(self) -> str:
        """Describe images, masks, classes and faults in one line."""
        tested = int(self.is_test.sum())
        unused = len(self.annotations) - int(self.is_training.sum()) - int(self.is_validation.sum()) - tested
        folder, root = self.annotations.folder, Path(self.root).absolute()
        elsewhere = "" if folder in (root, root / "train") else f" (images in {folder})"
        return (
            f"{self.root}{elsewhere}: {self.is_training.sum()} training and {self.is_validation.sum()} validation "
            f"images, {len(self.annotations.class_ids)} masks, {len(self.classes)} classes ({self.spec.name})"
            + (f", {len(self.classes.attributes)} attributes" if self.classes.attributes else "")
            + (f"; {tested} test images (data.test_fold)" if tested else "")
            + (f"; {unused} images not used (data.split_file)" if unused else "")
            + (f"; {describe_faults(self.faults)}" if self.faults else "")
        )

    def train_dataloader(self) -> DataLoader:
        """Return the loader of training batches; the images of a batch have the same aspect."""
        images = np.flatnonzero(self.is_training)
        sizes = self.annotations.sizes[images]
        sampler = AspectBatchSampler(
            lying=sizes[:, 1] > sizes[:, 0],
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
            done=self._done,
            repeats=self._repeats(images),
            is_fixed=bool(self.trainer and self.trainer.overfit_batches),  # type: ignore[attr-defined]
        )
        sampler.set_epoch(self._done[0])  # Lightning sets the epoch only after the workers start fetching
        dataset = TrainDataset(self.annotations, images, self.classes, self.augment, seed=self.seed)
        return self._loader(dataset, batch_sampler=sampler)

    def _repeats(self, images: np.ndarray) -> np.ndarray | None:
        """Return how often an epoch shows each training image, or None if each is shown once."""
        if self.repeat_threshold is None:
            return None
        label_of = self.classes.label_of()
        has_class = np.zeros((len(images), len(self.classes)), dtype=bool)
        for row, image in enumerate(images):
            for mask in self.annotations.instances(image):
                if (label := label_of.get(int(self.annotations.categories[mask]))) is not None:
                    has_class[row, label] = True
        return repeat_factors(has_class, self.repeat_threshold)

    def val_dataloader(self) -> DataLoader:
        """Return the loader of this rank's validation images, one per batch, so that no result depends on others."""
        images = np.flatnonzero(self.is_validation)
        if self.trainer:
            images = images[self.trainer.global_rank :: self.trainer.world_size]
        short_edge, long_edge = self.eval_scale
        dataset = EvalDataset(self.annotations, images, self.classes, short_edge=short_edge, long_edge=long_edge)
        return self._loader(dataset, batch_size=1)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """Move the images to the device; targets stay on the host."""
        return batch.to(device)

    def _loader(self, dataset: TrainDataset | EvalDataset, **how: Any) -> DataLoader:
        return DataLoader(
            dataset,
            collate_fn=collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=bool(self.trainer and self.trainer.accelerator.__class__.__name__ == "CUDAAccelerator"),
            **how,
        )
