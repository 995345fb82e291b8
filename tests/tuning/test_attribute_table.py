"""Compare tuning with attributes with the direct way: postprocess, write, read, score by ClassId or category."""

import csv
import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from fashion_hydra.cli.main import main
from fashion_hydra.config.command import Command
from fashion_hydra.config.compose import compose_options
from fashion_hydra.data.attribute_set import AttributeSet
from fashion_hydra.evaluation.matching import masks_to_match
from fashion_hydra.evaluation.score_submission import score_masks
from fashion_hydra.formats import writers
from fashion_hydra.formats.submission import read_masks, write_truth
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.attributes import EXPECTED, NONE, THRESHOLD, AttributeRule
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import rule_of
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.tuning.calibration import fit_calibration
from fashion_hydra.tuning.methods import BestAttributes, ClassThresholds, ExpectedScore, FixedRule
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows.tune import tune
from tests.tuning.conftest import GRID, IDS, MANIFEST, scene

SETS = ((((0, 2), 9), ((0,), 5), ((), 3)), (((1,), 4), ((), 4)), (((), 8),))
KNOWN = AttributeSet((28, 30, 77), ("", "", ""), ((0, 2), (1,), ()), SETS)
SHOWN = {3: ["", "_28", "_28_77", "_77"], 6: ["", "_30"], 23: [""]}  # training has not seen the set of `3_77`


@pytest.fixture(scope="module")
def with_attributes(tmp_path_factory):
    """A candidate cache with mostly correct attributes, and the truth."""
    rng = np.random.default_rng(8)
    manifest = replace(MANIFEST, attributes=KNOWN)
    cache = CandidateCache(tmp_path_factory.mktemp("attributes") / "candidates", manifest)
    truth = {}
    for i in range(50):
        candidates, plain = scene(rng, f"{i}.jpg")
        of_image = truth[f"{i}.jpg"] = {}
        for class_id, masks in plain.items():
            category = int(class_id.partition("_")[0])
            for mask in masks:
                suffix = rng.choice(SHOWN.get(category, [""]))
                of_image.setdefault(f"{category}{suffix}", []).append(mask)
        shares = torch.tensor(rng.beta(0.6, 0.6, (len(candidates), 3))).half()
        cache.write(replace(candidates, attributes=shares))
    return CandidateCache(cache.folder), truth


def random_rule(draw):
    kind = draw.choice([NONE, THRESHOLD, EXPECTED, EXPECTED])
    attributes = AttributeRule(kind, draw.choice([0.3, 0.5, 0.8]), draw.choice([0.0, 0.1, 0.3]), KNOWN)
    return Postprocess(
        score_thr=draw.choice([0.05, 0.3, 0.5]),
        iou_thr=draw.choice([0.3, 0.5]),
        mask_thr=draw.choice([0.45, 0.5]),
        max_per_image=draw.choice([100, 3]),
        min_area=draw.choice([1, 50]),
        dropped_labels=draw.choice([(), (1,)]),
        attributes=attributes,
    )


def the_long_way(cache, truth, rule, folder, match):
    answers = (
        writers.ImageAnswer(image, image, GRID, apply(cache.read(image), rule, size=GRID), IDS) for image in truth
    )
    writers.write_submission_csv(folder / "submission.csv", answers)
    predicted = read_masks(folder / "submission.csv")
    return score_masks(masks_to_match(truth, match), masks_to_match(predicted, match))[0]


@pytest.mark.parametrize("match", ["class_id", "category"])
def test_any_rule_scores_as_predicting_and_scoring_with_it(with_attributes, tmp_path, match):
    cache, truth = with_attributes
    draw = random.Random(match)
    rules = [random_rule(draw) for _ in range(12)]
    loose = replace(rules[0], score_thr=0.05, iou_thr=0.5, mask_thr=0.5)
    table = build_score_table(cache, masks_to_match(truth, match), [*rules, loose], match=match, workers=1)
    calibration = fit_calibration(table, replace(loose, attributes=None), weight=5)
    rules += [replace(loose, calibration=calibration, attributes=one.attributes) for one in rules[:6]]
    for rule in rules:
        expected = the_long_way(cache, truth, rule, tmp_path, match)
        assert table.score(rule) == expected.value
        assert dict(zip(table.image_ids, table.image_scores(rule).tolist(), strict=True)) == expected.per_image
    assert len({table.score(rule) for rule in rules}) > 8
    images = np.array([2, 3, 11, 40])
    for rule in rules:
        assert np.array_equal(table[images].image_scores(rule), table.image_scores(rule)[images])


@pytest.fixture(scope="module")
def table(with_attributes):
    cache, truth = with_attributes
    rule = Postprocess(0.05, 0.5, 0.5, 100, attributes=AttributeRule(EXPECTED, 0.5, 0.0, KNOWN))
    return build_score_table(cache, truth, [rule], workers=1), rule


def test_the_best_answer_is_the_best_of_all_that_are_tried(table):
    score_table, rule = table
    thrs, matches, dropped = [0.4, 0.6], [0.0, 0.2, 0.4], [(), (0,), (0, 1)]
    found = BestAttributes(FixedRule(rule), thrs, matches, dropped)(score_table)
    every = [
        replace(rule, dropped_labels=d, attributes=AttributeRule(kind, thr, match_thr, KNOWN))
        for d in dropped
        for kind, thr in [(NONE, 0.5), (EXPECTED, 0.5), *((THRESHOLD, t) for t in thrs)]
        for match_thr in matches
    ]
    assert score_table.score(found) == max(score_table.score(one) for one in every)
    assert score_table.score(found) > score_table.score(rule)
    plain = replace(rule, attributes=None)
    assert BestAttributes(FixedRule(plain), thrs, matches, dropped)(score_table) == plain


def test_the_other_methods_take_attributes_too(table):
    score_table, rule = table
    for fit in (
        ClassThresholds(FixedRule(rule), [0.05, 0.3, 0.5, 0.7, 1.0], 0),
        ExpectedScore(FixedRule(rule), 0.05, 5),
    ):
        found = fit(score_table)
        assert found.attributes == rule.attributes
        assert score_table.score(found) > score_table.score(rule)


def test_hits_by_category_do_not_ask_for_attributes(table):
    score_table, rule = table
    by_category, by_class_id = score_table.groups(rule, by_category=True), score_table.groups(rule)
    assert by_category.hits.sum() > by_class_id.hits.sum() > 0
    assert by_category.masks.sum() == by_class_id.masks.sum()
    answered = score_table.answered(rule)
    assert (answered.hits > 0).sum() == by_category.hits[:, 0].sum()


def test_candidates_survive_the_disk_and_damaged_ones_are_told(with_attributes, tmp_path):
    cache, _ = with_attributes
    assert cache.manifest.attributes == KNOWN
    kept = cache.read("3.jpg")
    assert kept.attributes.dtype == torch.float16
    copy = CandidateCache(tmp_path / "candidates", cache.manifest)
    copy.write(replace(kept, attributes=kept.attributes[:, :2]))
    with pytest.raises(UserError, match=r"damaged candidates \(attributes: expected float16 of shape"):
        copy.read("3.jpg")
    copy.write(replace(kept, attributes=None))
    with pytest.raises(UserError, match=r"damaged candidates .*attributes"):
        copy.read("3.jpg")
    with pytest.raises(UserError, match=r"holds candidates of other attributes \(attributes\)|other attributes"):
        CandidateCache(tmp_path / "candidates", replace(cache.manifest, attributes=AttributeSet()))


@pytest.mark.parametrize("match", ["class_id", "category"])
def test_the_script_writes_rules_that_score_as_told(with_attributes, tmp_path, capsys, match):
    cache, truth = with_attributes[0], dict(list(with_attributes[1].items())[:16])
    out = tmp_path / "tuned"
    write_truth(cache.folder.parent / "truth.csv", truth)
    options = compose_options(
        "tune", f"out={out}", f"paths.output_dir={out}", f"candidates.folder={cache.folder.parent}", "folds=2",
        f"score.match={match}", "grid.score_thr=[0.3,0.5]", "grid.iou_thr=[0.5]", "grid.mask_thr=[0.45,0.5]",
        "grid.min_area=[1]", "search.trials=4", "per_class.step=0.2", "postprocess.iou_thr=0.5",
        "attributes.attribute_thr=[0.5]", "attributes.match_thr=[0.0,0.2]",
    )  # fmt: skip
    tune(options, Command())
    with (out / "methods.csv").open() as stream:
        methods = [row["method"] for row in csv.DictReader(stream)]
    wanted = ["untuned", "winner", "winner+classes", "grid", "attributes", "search", "per_class", "expected"]
    assert methods == [name for name in wanted if name != "attributes" or match == "class_id"]
    capsys.readouterr()
    assert main(["compare", str(out), str(cache.folder.parent)]) == 0
    told = dict(re.findall(r"^(\S+) +(0\.\d+)", capsys.readouterr().out, re.M))
    assert list(told) == methods
    for method in methods:
        rule = rule_of(out / "methods" / f"{method}.yaml", cache.manifest.classes)
        assert f"{the_long_way(cache, truth, rule, tmp_path, match).value:.6f}" == told[method], method
