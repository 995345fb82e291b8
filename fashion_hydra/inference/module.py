"""Lightning module and data module that predict the candidates of each image into the cache."""

import logging
from collections.abc import Sequence

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from fashion_hydra.data.dataset import PredictDataset
from fashion_hydra.data.image_list import ImageList
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.cascade import merge_sources
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.detector import Detector
from fashion_hydra.structures.batch import ScaledImage
from fashion_hydra.structures.detections import Candidates
from fashion_hydra.utils.errors import UserError

log = logging.getLogger(__name__)


class PredictionModule(pl.LightningModule):
    """Lightning module that writes the candidates of each image into the cache.

    Args:
        detectors: the models.
        cache: the candidate cache.
        merging: options for merging sources.
    """

    def __init__(self, detectors: Sequence[Detector], cache: CandidateCache, merging: Merging) -> None:
        super().__init__()
        self.detectors = nn.ModuleList(detectors)
        self.cache, self.merging, self.rules = cache, merging, cache.manifest.rules()

    def on_predict_start(self) -> None:
        """Prepare the detectors for inference on the trainer's device."""
        for detector in self.detectors:
            detector.for_inference(self.device)  # type: ignore[operator]

    def predict_step(self, batch: ScaledImage, batch_idx: int) -> None:
        """Cache the candidates of one image; if its file cannot be read, log a warning and cache zero candidates."""
        if batch.fault:
            log.warning("%s: %s; no masks are predicted for this image", batch.image_id, batch.fault)
            found = no_candidates(batch.image_id, attributes=len(self.cache.manifest.attributes))
        else:
            detectors = list(self.detectors)
            found = merge_sources(detectors, batch, self.rules, self.merging, device=self.device)  # type: ignore[arg-type]
        self.cache.write(found, fault=batch.fault)


class PredictionData(pl.LightningDataModule):
    """Data module with the images that have no candidates yet, distributed over the ranks."""

    def __init__(self, image_list: ImageList, scales: Sequence[tuple[int, int]], *, num_workers: int) -> None:
        super().__init__()
        if num_workers < 0:
            raise UserError(f"data.num_workers={num_workers}: must be at least 0")
        self.image_list, self.scales, self.num_workers = image_list, scales, num_workers

    def predict_dataloader(self) -> DataLoader:
        """Return a loader of this rank's images, one image at a time."""
        assert self.trainer is not None
        mine = self.image_list[range(self.trainer.global_rank, len(self.image_list), self.trainer.world_size)]
        dataset = PredictDataset(mine, self.scales)
        return DataLoader(dataset, batch_size=None, num_workers=self.num_workers)

    def transfer_batch_to_device(self, batch: ScaledImage, device: torch.device, dataloader_idx: int) -> ScaledImage:
        """Leave the batch on the CPU; `merge_sources` moves the images."""
        return batch


def no_candidates(image_id: str, *, attributes: int) -> Candidates:
    """Return zero candidates, for an image that cannot be read; `attributes` is the model's number of attributes."""
    return Candidates(
        image_id,
        (1, 1),
        torch.zeros(0, 4),
        torch.zeros(0),
        torch.zeros(0, dtype=torch.int64),
        torch.zeros(0, 1, 1),
        torch.zeros(0, attributes, dtype=torch.float16) if attributes else None,
    )
