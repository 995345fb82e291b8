"""Sampling of boxes with one seed per image, and each rank's share of the losses in distributed training."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from mmdet.models.task_modules import RandomSampler, SamplingResult
from torch import Tensor

_APART = 16
"""Distance between the seeds of two samplers for the same image, more than the draws of a sampler per image."""


class SampleCounts(NamedTuple):
    """Numbers of boxes sampled in an image, and mmdet's divisor of the anchors' losses."""

    positive: int
    negative: int
    divisor: int


class ImageSampler(RandomSampler):
    """mmdet's random sampler with one seed per image: samples depend neither on the other images of the batch nor on
    the rank. Without seeds, torch's global generator is used, as in mmdet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begin(())

    def begin(self, seeds: Sequence[int]) -> None:
        """Start a batch with one seed per image. `sample` then takes the images in order, once or several times."""
        self.seeds = seeds
        self.drawn: list[SampleCounts] = []

    def sample(self, *args: Any, **options: Any) -> SamplingResult:
        """Sample the boxes of the next image with its seed."""
        self.generator = None
        if self.seeds:
            turn, image = divmod(len(self.drawn), len(self.seeds))
            self.generator = torch.Generator().manual_seed(self.seeds[image] + turn)
        result = super().sample(*args, **options)
        self.drawn.append(SampleCounts(len(result.pos_inds), len(result.neg_inds), result.avg_factor))
        return result

    def random_choice(self, gallery: Tensor, num: int) -> Tensor:
        """Return `num` random elements of `gallery`."""
        order = torch.randperm(len(gallery), generator=self.generator)
        return gallery[order[:num].to(gallery.device)]


def begin_sampling(net: Any, seeds: Sequence[int]) -> dict[str, ImageSampler]:
    """Start a batch in all samplers of a cascade, of boxes and of points.

    Args:
        net: mmdet's cascade.
        seeds: one seed per image.

    Returns:
        Samplers by the prefix of their losses' names.
    """
    stages = {"loss_rpn": net.rpn_head.sampler}
    stages |= {f"s{stage}.loss": sampler for stage, sampler in enumerate(net.roi_head.bbox_sampler)}
    for salt, sampler in enumerate(stages.values()):
        sampler.begin([seed + _APART * salt for seed in seeds])
    net.roi_head.point_seeds = [seed + _APART * len(stages) for seed in seeds]
    return stages


def sum_over_ranks(values: Tensor) -> Tensor:
    """Return the sum of a tensor over all ranks; without distributed training, the tensor itself."""
    if _world_size() == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _shares(
    losses: dict[str, Tensor],
    stages: dict[str, ImageSampler],
    images: int,
    device: torch.device,
    counted: Mapping[str, int],
) -> dict[str, Tensor]:
    """Rescale losses from means over this rank's boxes or cells to shares of the mean over all ranks' boxes or cells.

    Args:
        losses: losses by name.
        stages: samplers by the prefix of their losses' names.
        images: number of images of this rank.
        device: device for the reduction.
        counted: numbers of elements that other losses average over, by the prefix of their names.
    """
    counts = dict(counted)  # the divisors of mmdet's losses
    for stage, sampler in stages.items():
        first, again = sampler.drawn[:images], sampler.drawn[images:]
        of_anchors = stage == "loss_rpn"
        counts[stage] = sum(d.divisor if of_anchors else d.positive + d.negative for d in first)
        if again:
            counts[f"{stage}_mask"] = sum(d.positive for d in again)
    mine = torch.tensor(list(counts.values()), dtype=torch.float64, device=device)
    share = dict(zip(counts, (mine * _world_size() / sum_over_ranks(mine).clamp(min=1)).float(), strict=True))
    return {
        name: value * share[max((key for key in share if name.startswith(key)), key=len)]
        for name, value in losses.items()
    }
