"""Boxes to learn from, drawn with a seed an image, and loss shares of processes that train together."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from mmdet.models.task_modules import RandomSampler, SamplingResult
from torch import Tensor

_APART = 16
"""Between the seeds of two samplers that draw in the same image; each draws fewer times."""


class SampleCounts(NamedTuple):
    """How many boxes were sampled in an image, and what mmdet divides the losses of anchors by."""

    positive: int
    negative: int
    divisor: int


class ImageSampler(RandomSampler):
    """mmdet's sampler of boxes to learn from, with a seed an image: what is drawn does not depend on the image's
    neighbours, nor on the process that it is in. Without seeds torch's own generator draws, as in mmdet."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.begin(())

    def begin(self, seeds: Sequence[int]) -> None:
        """Before the images of a batch are sampled, one after the other, once or several times."""
        self.seeds = seeds
        self.drawn: list[SampleCounts] = []

    def sample(self, *args: Any, **options: Any) -> SamplingResult:
        """Of the next image."""
        self.generator = None
        if self.seeds:
            turn, image = divmod(len(self.drawn), len(self.seeds))
            self.generator = torch.Generator().manual_seed(self.seeds[image] + turn)
        result = super().sample(*args, **options)
        self.drawn.append(SampleCounts(len(result.pos_inds), len(result.neg_inds), result.avg_factor))
        return result

    def random_choice(self, gallery: Tensor, num: int) -> Tensor:
        """So many of these."""
        order = torch.randperm(len(gallery), generator=self.generator)
        return gallery[order[:num].to(gallery.device)]


def begin_sampling(net: Any, seeds: Sequence[int]) -> dict[str, ImageSampler]:
    """Tell the samplers of a cascade which images come next.

    Args:
        net: mmdet's cascade.
        seeds: one an image.

    Returns:
        The samplers, by what the names of their losses begin with.
    """
    stages = {"loss_rpn": net.rpn_head.sampler}
    stages |= {f"s{stage}.loss": sampler for stage, sampler in enumerate(net.roi_head.bbox_sampler)}
    for salt, sampler in enumerate(stages.values()):
        sampler.begin([seed + _APART * salt for seed in seeds])
    return stages


def _world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _shares(
    losses: dict[str, Tensor],
    stages: dict[str, ImageSampler],
    images: int,
    device: torch.device,
    counted: Mapping[str, int],
) -> dict[str, Tensor]:
    """Means over this process's boxes or cells -> shares of the mean over those of all processes.

    Args:
        losses: by name.
        stages: the sampler behind the losses whose names begin so.
        images: of this process.
        device: to count on.
        counted: what the losses of these names are means over.
    """
    counts = dict(counted)  # what mmdet's heads divide by
    for stage, sampler in stages.items():
        first, again = sampler.drawn[:images], sampler.drawn[images:]
        of_anchors = stage == "loss_rpn"
        counts[stage] = sum(d.divisor if of_anchors else d.positive + d.negative for d in first)
        if again:
            counts[f"{stage}_mask"] = sum(d.positive for d in again)
    mine = torch.tensor(list(counts.values()), dtype=torch.float64, device=device)
    everyones = mine.clone()
    dist.all_reduce(everyones)
    share = dict(zip(counts, (mine * _world_size() / everyones.clamp(min=1)).float(), strict=True))
    return {
        name: value * share[max((key for key in share if name.startswith(key)), key=len)]
        for name, value in losses.items()
    }
