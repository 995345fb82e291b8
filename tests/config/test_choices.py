"""Every config composes, and the winner's recipe has exactly the winner's numbers."""

import itertools
import math
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from fashion_hydra.config.compose import compose_config
from fashion_hydra.config.places import PROJECT_ROOT

CONF = PROJECT_ROOT / "conf"


def composed(*overrides, config="train"):
    predicting = ["out=out", "paths.output_dir=out"]
    own = {"train": ["paths.output_dir=out", "name=test"], "predict": predicting, "tune": predicting}[config]
    return OmegaConf.to_container(compose_config(config, *own, *overrides), resolve=True)


SWEEPS = {"train": ["learning_rate", "regularisation"], "tune": ["class_sets", "thresholds"]}
GROUPS = {
    "train": ["augment", "callbacks", "classes", "data", "debug", "experiment", "logger", "model", "paths",
              "postprocess", "schedule", "trainer", "tta"],
    "predict": ["classes", "ensemble", "paths", "postprocess", "trainer", "tta"],
}  # fmt: skip
GROUPS["tune"] = GROUPS["predict"]  # `experiment` of these two has separate tests
OTHERS = {"train": {"trainer=inference", "postprocess=tuned"}, "predict": {"trainer=default", "trainer=cpu"}}
OTHERS["tune"] = {*OTHERS["predict"], "postprocess=tuned"}
CHOICES = [
    (config, choice)
    for config, groups in GROUPS.items()
    for choice in sorted(f"{p.parent.name}={p.stem}" for p in CONF.glob("*/*.yaml") if p.parent.name in groups)
    if choice not in OTHERS[config]
]


def test_every_group_is_used():
    used = {group for groups in GROUPS.values() for group in groups}
    assert {p.parent.name for p in CONF.glob("*/*.yaml")} == used | {"hparams_search"}
    assert {p.stem for p in CONF.glob("hparams_search/*.yaml")} == {name for names in SWEEPS.values() for name in names}


@pytest.mark.parametrize(("config", "name"), [(config, name) for config, names in SWEEPS.items() for name in names])
def test_every_sweep_is_one_of_configs_that_compose(config, name):
    hydra = compose_config(config, f"hparams_search={name}", with_hydra=True).hydra
    assert hydra.mode.name == "MULTIRUN"
    choices = [[f"{key}={value}" for value in str(values).split(",")] for key, values in hydra.sweeper.params.items()]
    jobs = [composed(*job, config=config) for job in itertools.product(*choices)]
    assert len(jobs) == math.prod(map(len, choices)) >= 3
    assert all(job != other for job, other in itertools.combinations(jobs, 2))


@pytest.mark.parametrize(("config", "choice"), CHOICES)
def test_every_choice_composes_and_its_group_is_a_top_level_key(config, choice):
    group = choice.partition("=")[0]
    assert group in ("experiment", "debug") or group in composed(choice, config=config)


def test_tuning_compares_with_the_winners_thresholds_and_sweeps_its_class_sets():
    cfg = composed(config="tune")
    winner = composed("postprocess=winner", config="predict")["postprocess"]
    assert cfg["winners"] == winner
    assert cfg["removal"]["winner"] == composed("classes=winner", config="predict")["classes"]
    assert cfg["postprocess"]["score_thr"] == cfg["candidates"]["score_floor"]
    assert set(cfg["grid"]["drop"]) <= set(cfg["removal"])
    assert composed("postprocess=winner", config="tune")["postprocess"] == winner


def test_the_winners_views():
    views = composed("tta=winner", config="predict")["tta"]
    assert views["scales"] == [[1000, 1600], [1200, 1900], [1400, 2200]]
    assert (views["factors"], views["flips"]) == (None, [False, True])


def test_the_winners_recipe_to_the_number():
    cfg = composed("experiment=winner")
    assert cfg["trainer"]["devices"] * cfg["data"]["batch_size"] == 16
    schedule = cfg["schedule"]
    assert (schedule["lr"], schedule["base_batch"], schedule["epochs"], schedule["gamma"]) == (0.03, 16, 20, 0.1)
    assert (schedule["warmup_steps"], schedule["milestones"], schedule["decay"]) == (500, [10, 18], "multistep")
    assert schedule["warmup_ratio"] == pytest.approx(1 / 3)
    assert (schedule["optimizer"]["momentum"], schedule["optimizer"]["weight_decay"]) == (0.9, 1e-4)
    assert cfg["trainer"]["gradient_clip_val"] == 35
    assert "ema" not in cfg["callbacks"]
    augment = cfg["augment"]
    assert (augment["short_edge"], augment["long_edge"], augment["flip"]) == ([600, 1200], 1900, 0.5)
    cutout, contrast, jpeg = augment["photometric"]
    assert (cutout["hole_height_range"], cutout["p"]) == ([64, 64], 0.5)
    assert (contrast["brightness_limit"], contrast["contrast_limit"], contrast["p"]) == (0.3, 0.3, 0.5)
    assert (jpeg["quality_range"], jpeg["p"]) == ([80, 99], 0.5)
    assert augment["photometric_on"] == "original"
    assert (cfg["data"]["folds"], cfg["data"]["split_seed"]) == (100, 777)
    model = cfg["model"]
    assert (model["stage_ious"], model["stage_weights"]) == ([0.5, 0.6, 0.7], [1, 0.5, 0.25])
    assert (model["rois_per_stage"], model["train_proposals"], model["test_proposals"]) == (512, 2000, 1000)
    assert (model["proposal_iou_thr"], model["neck_channels"]) == (0.7, 256)
    assert model["backbone"]["dcn"] == {"type": "DCN", "deform_groups": 1, "fallback_on_stride": False}
    rule = cfg["postprocess"]
    assert (rule["score_thr"], rule["iou_thr"], rule["mask_thr"]) == (0.5, 0.3, 0.45)
    assert (rule["max_per_image"], rule["min_area"]) == (100, 20)
    assert cfg["classes"]["train"] == "all"
    assert cfg["classes"]["drop"] == list(range(13))


def test_classes_and_thresholds_have_one_home():
    for file in (CONF / "model").rglob("*.yaml"):
        keys = OmegaConf.load(file)
        assert not {"num_classes", "score_thr", "iou_thr", "mask_thr"} & set(keys), file


def test_the_experiments_are_those_of_the_top_level_folder():
    assert (CONF / "experiment").resolve() == (PROJECT_ROOT / "experiments").resolve()
    assert Path(CONF / "experiment" / "winner.yaml").is_file()


# Rung: winner's leaderboard score, models, views, score_thr, iou_thr, mask_thr, smallest mask, dropped classes.
EARLY, LATE = [*range(13), 27, 28, 33], [*range(13)]
LADDER = {
    "1_default": (0.21913, 1, 1, 0.05, 0.5, 0.5, 1, EARLY),
    "2_thresholds": (0.30011, 1, 1, 0.5, 0.3, 0.45, 1, EARLY),
    "3_views": (0.31074, 1, 6, 0.5, 0.3, 0.45, 1, EARLY),
    "4_ensemble": (0.31626, 3, 6, 0.5, 0.3, 0.45, 1, EARLY),
    "5_classes": (0.33511, 3, 6, 0.5, 0.3, 0.45, 1, LATE),
    "6_min_area": (0.33621, 3, 6, 0.5, 0.3, 0.45, 20, LATE),
}


@pytest.mark.parametrize("name", LADDER)
def test_the_winners_ladder_to_the_number(name):
    cfg = composed(f"experiment=ladder/{name}", config="predict")
    views = len(cfg["tta"]["factors"]) * len(cfg["tta"]["flips"])
    rule = [cfg["postprocess"][key] for key in ("score_thr", "iou_thr", "mask_thr", "min_area")]
    found = (cfg["rung"]["leaderboard"], cfg["ensemble"]["count"], views, *rule, cfg["classes"]["drop"])
    assert found == LADDER[name]
    assert cfg["postprocess"]["max_per_image"] == 100


def test_the_ladder_has_these_rungs_and_then_some():
    names = [path.stem for path in sorted((CONF / "experiment" / "ladder").glob("*.yaml"))]
    assert names[:6] == list(LADDER)
    for name in names[6:]:
        assert composed(f"experiment=ladder/{name}", config="predict")["rung"]["leaderboard"] is None
