"""Compare the score table with the direct way: postprocess every image, write the submission, read it, score it."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from fashion_hydra.evaluation.score_submission import score_files
from fashion_hydra.formats import writers
from fashion_hydra.formats.submission import write_truth
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.utils.errors import UserError

GRID = (512, 512)
MASK_THRS = [0.3, 0.45, 0.5, 0.6]


def the_long_way(cache, truth, rule, folder, pooling):
    answers = []
    for image in truth:
        detections = apply(cache.read(image), rule, size=GRID)
        answers.append(writers.ImageAnswer(image, image, GRID, detections, cache.manifest.class_ids))
    writers.write_submission_csv(folder / "submission.csv", answers)
    write_truth(folder / "truth.csv", truth)
    return score_files(folder / "truth.csv", folder / "submission.csv", pooling=pooling)[0]


def random_rule(draw, nms):
    return Postprocess(
        score_thr=draw.choice([0.05, 0.3, 0.4, 0.5, 0.57, 0.9]),
        iou_thr=draw.choice([0.3, 0.5, 0.7]),
        mask_thr=draw.choice(MASK_THRS),
        max_per_image=draw.choice([100, 100, 3, 1]),
        min_area=draw.choice([1, 20, 900]),
        label_score_thr=draw.choice([{}, {0: 0.6, 2: 0.2}]),
        dropped_labels=draw.choice([(), (), (1,)]),
        suppress_overlaps=draw.choice([True, True, nms == "soft"]),
        nms=nms,
        soft_nms_sigma=0.4,
        mask_iou_power=draw.choice([1.0, 1.0, 0.5, 0.0]),
        mask_certainty_power=draw.choice([0.0, 0.0, 1.0, 0.5]),
    )


@pytest.mark.parametrize("pooling", ["class", "image"])
@pytest.mark.parametrize("nms", ["box", "mask", "soft"])
def test_any_rule_scores_as_predicting_and_scoring_with_it(scenes, tmp_path, nms, pooling):
    cache, truth = scenes
    draw = random.Random(nms)
    rules = [random_rule(draw, nms) for _ in range(12)]
    score_table = build_score_table(cache, truth, rules, workers=1)
    for rule in rules:
        expected = the_long_way(cache, truth, rule, tmp_path, pooling)
        assert score_table.score(rule, pooling=pooling) == expected.value
        per_image = dict(
            zip(score_table.image_ids, score_table.image_scores(rule, pooling=pooling).tolist(), strict=True)
        )
        assert per_image == expected.per_image
    assert len({score_table.score(rule) for rule in rules}) > 6


@pytest.mark.parametrize("nms", ["box", "mask", "soft"])
def test_any_rule_scores_so_where_masks_are_scored(scenes, tmp_path, nms):
    plain, truth = scenes
    cache, random_ious = CandidateCache(tmp_path / "scored", plain.manifest), torch.Generator().manual_seed(0)
    for image in truth:
        candidates = plain.read(image)
        ious = torch.rand(len(candidates), generator=random_ious) * 0.7 + 0.3
        cache.write(replace(candidates, mask_ious=ious))
        assert torch.equal(cache.read(image).mask_ious, ious)
    draw = random.Random(nms)
    rules = [random_rule(draw, nms) for _ in range(12)]
    score_table, without = (build_score_table(one, truth, rules, workers=1) for one in (cache, plain))
    for rule in rules:
        expected = the_long_way(cache, truth, rule, tmp_path, "class")
        assert score_table.score(rule) == expected.value
    assert sum(score_table.score(rule) != without.score(rule) for rule in rules) > 4


def test_more_processes_measure_the_same(scenes):
    cache, truth = scenes
    rules = [random_rule(random.Random(i), "box") for i in range(4)]
    one, two = (build_score_table(cache, truth, rules, workers=workers) for workers in (1, 2))
    for rule in rules:
        assert np.array_equal(one.image_scores(rule), two.image_scores(rule))


def test_a_subset_of_the_score_table_scores_its_images_as_the_full_table(scenes):
    cache, truth = scenes
    rules = [random_rule(random.Random(i), "box") for i in range(4)]
    score_table = build_score_table(cache, truth, rules, workers=1)
    images = np.array([1, 4, 5, 17, 40])
    part = score_table[images]
    assert part.image_ids == tuple(score_table.image_ids[i] for i in images)
    for rule in rules:
        assert np.array_equal(part.image_scores(rule), score_table.image_scores(rule)[images])
        assert np.array_equal(part.category_table(), score_table.category_table()[images])


def test_answered_detections_are_hits_as_often_as_the_score_counts_them(scenes):
    cache, truth = scenes
    rule = Postprocess(score_thr=0.2, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
    score_table = build_score_table(cache, truth, [rule], workers=1)
    answered, groups = score_table.answered(rule), score_table.groups(rule)
    assert (answered.hits[:, None] > np.arange(10)).sum(0).tolist() == groups.hits.sum(0).tolist()
    assert len(answered.score) + len(score_table.truth_label) == groups.masks.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score_thr": 0.01}, r"score_thr=0\.01 is below what the candidates hold \(score_floor 0\.05\)"),
        ({"iou_thr": 0.4}, r"iou_thr=0\.4 is not among .* \(0\.3, 0\.5, 0\.7\)"),
    ],
)
def test_what_the_cache_is_not_exact_for_is_refused(scenes, change, message):
    rule = {"score_thr": 0.3, "iou_thr": 0.5, "mask_thr": 0.5, "max_per_image": 100, **change}
    with pytest.raises(UserError, match=message):
        build_score_table(*scenes, [Postprocess(**rule)], workers=1)


def test_a_rule_that_the_images_were_not_measured_for_is_no_answer(scenes):
    rule = Postprocess(score_thr=0.3, iou_thr=0.5, mask_thr=0.5, max_per_image=100)
    score_table = build_score_table(*scenes, [rule], workers=1)
    for change in ({"score_thr": 0.2}, {"label_score_thr": {1: 0.1}}, {"iou_thr": 0.7}, {"mask_thr": 0.4}):
        with pytest.raises(ValueError, match="not measured"):
            score_table.score(replace(rule, **change))
