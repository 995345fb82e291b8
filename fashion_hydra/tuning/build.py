"""Build the score table from cached candidates and the truth, on all cores."""

import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import torch
from tqdm import tqdm

from fashion_hydra.evaluation.competition_score import ClassMasks
from fashion_hydra.evaluation.matching import CLASS_ID
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.image_table import Family, ImageTable, Key, families, measure_image
from fashion_hydra.tuning.score_table import ScoreTable
from fashion_hydra.utils.errors import UserError

_FEW = 40
"""With fewer images, starting worker processes takes longer than it saves."""


@dataclass(frozen=True)
class _Job:
    cache: Path
    image_id: str
    truth: ClassMasks
    class_ids: tuple[int, ...]
    asked: Mapping[Key, Family]


def build_score_table(
    cache: CandidateCache,
    truth: Mapping[str, ClassMasks],
    rules: Sequence[Postprocess],
    *,
    match: str = CLASS_ID,
    workers: int | None = None,
    progress: bool = True,
) -> ScoreTable:
    """Measure images for the given rules; the score table also holds for stricter rules of the same families.

    Args:
        cache: the candidate cache.
        truth: image id -> ClassId -> masks on the submission grid, for the images to measure.
        match: what has to match for a hit, and the keys of `truth`: `class_id` or `category`.
        rules: rules that the score table must support.
        workers: number of processes; None: one per core, up to 16.
        progress: whether to show a progress bar.

    Raises:
        UserError: the cache is not exact for a rule, a rule has steps, or an image's candidates are missing or damaged.
    """
    for rule in rules:
        cache.manifest.check(rule)
        if rule.steps:
            raise UserError(
                f"postprocess.steps={[*rule.steps]}: tuning draws masks once for all thresholds, without steps. "
                "Tune without steps, then predict with and without them and compare with `fashion-hydra score`"
            )
    if absent := cache.missing(list(truth)):
        first = list(truth)[absent[0]]
        raise UserError(
            f"{cache.folder}: no candidates of {len(absent)} of {len(truth)} images with truth, the first {first}. "
            "Predict these images, or give the truth of the images that were predicted"
        )
    class_ids, asked = cache.manifest.class_ids, families(rules)
    jobs = [_Job(cache.folder, image_id, masks, class_ids, asked) for image_id, masks in truth.items()]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = _on_all_cores(jobs, min(cores, 16) if workers is None else workers)
    hidden = None if progress else True
    tables = list(tqdm(made, total=len(jobs), desc="measuring", unit=" images", disable=hidden))
    return ScoreTable.of(tables, class_ids, asked, match=match)


def _on_all_cores(jobs: Sequence[_Job], workers: int) -> Iterator[ImageTable]:
    if workers <= 1 or len(jobs) < _FEW:
        yield from map(_measure, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        yield from pool.map(_measure, jobs, chunksize=4)


def _one_thread() -> None:
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def _measure(job: _Job) -> ImageTable:
    candidates = CandidateCache(job.cache).read(job.image_id)
    return measure_image(candidates, job.truth, job.class_ids, job.asked)
