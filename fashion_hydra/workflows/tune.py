"""Tune postprocessing rules on candidates with truth, and cross-validate them."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fashion_hydra.config.build import rule_options
from fashion_hydra.config.command import Command
from fashion_hydra.config.devices import check_devices
from fashion_hydra.config.schema import TuneConfig
from fashion_hydra.config.stored import StoredRun
from fashion_hydra.data.class_set import named_categories
from fashion_hydra.data.split import stratified_folds
from fashion_hydra.evaluation.competition_score import mean
from fashion_hydra.evaluation.matching import choose_match, describe_match, reach_of_masks
from fashion_hydra.formats.submission import MaskTable, read_masks, write_truth
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.plots.threshold_maps import draw_class_gains, draw_curves, draw_heat_maps
from fashion_hydra.postprocess.rule_files import NAME, write_tuned
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.training.console import log_rank_zero, silence_library_noise
from fashion_hydra.training.trackers import Cell, end_records, log_files, log_table
from fashion_hydra.tuning.build import build_score_table
from fashion_hydra.tuning.cross_validation import MethodResult, best_method, compare_methods, cross_fit
from fashion_hydra.tuning.grid import scores_of
from fashion_hydra.tuning.summary import (
    describe_rule,
    drop_set_lines,
    edge_lines,
    result_lines,
    write_class_table,
    write_grid,
    write_results,
)
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows.predict import predict_missing
from fashion_hydra.workflows.prediction_plan import plan_prediction, truth_of
from fashion_hydra.workflows.tuning_rules import TuningData, TuningRules, check_numbers


def open_tuning_data(options: TuneConfig, command: Command) -> TuningData:
    """Open the candidates and the truth; predict candidates that are missing.

    Raises:
        UserError: candidates or truth are missing or damaged.
    """
    check_devices(options.trainer, command)
    file, run = Path(options.truth) if options.truth is not None else None, None
    if options.candidates.folder is None:
        plan = plan_prediction(options, is_default_out=not command.gives("out"))
        truth = _read_truth(file) if file is not None else truth_of(plan)
        if truth is None:
            raise UserError(
                f"data.images={options.data.images}: true masks unknown. Give data.images=val, or truth=FILE.csv"
            )
        if not predict_missing(plan, options).is_global_zero:
            raise SystemExit(0)  # only rank 0 continues
        cache, run = plan.cache, plan.run
    else:
        folder = Path(options.candidates.folder)
        cache = CandidateCache(folder / "candidates" if (folder / "candidates").is_dir() else folder)
        truth = _read_truth(file or folder / "truth.csv")
    manifest = cache.manifest
    known = manifest.classes
    drop = named_categories(options.classes.drop, known, "classes.drop")
    classes = replace(known, drop=drop)
    found = reach_of_masks(truth, classes.can_answer, pooling=options.score.pooling)
    if remark := describe_match(options.score.match, found):
        log_rank_zero("score          %s", remark)
    return TuningData(cache, classes, truth, choose_match(options.score.match, found), run)


def _read_truth(file: Path) -> MaskTable:
    if not file.is_file():
        raise UserError(f"truth={file}: no such file. Give truth=FILE.csv, the true masks of the images")
    return read_masks(file)


def score_rule(options: TuneConfig, command: Command) -> float:
    """Return the score of the rule in the options, without tuning."""
    silence_library_noise()
    tuning_data = open_tuning_data(options, command)
    rule = build_rule(rule_options(options.postprocess), tuning_data.classes)
    table = build_score_table(tuning_data.cache, tuning_data.truth_to_match(), [rule], match=tuning_data.match)
    score = table.score(rule, pooling=options.score.pooling)
    log_rank_zero("rule           %s", describe_rule(rule))
    log_rank_zero("score          %.6f", score)
    return score


def tune(options: TuneConfig, command: Command) -> float:
    """Find and compare rules; write rules, tables and pictures; return the best rule's cross-fitted score.

    Raises:
        UserError: candidates or truth are missing or damaged, or an option is invalid.
    """
    silence_library_noise()
    check_numbers(options)
    tuning_data, folder = open_tuning_data(options, command), Path(options.out)
    images = len(tuning_data.truth)
    if not 2 <= options.folds <= images:
        raise UserError(f"folds={options.folds}: must be between 2 and the number of images ({images})")
    folder.mkdir(parents=True, exist_ok=True)
    write_truth(folder / "truth.csv", tuning_data.truth)
    rules = TuningRules.of(options, tuning_data)
    masks = sum(len(of_class) for of_image in tuning_data.truth.values() for of_class in of_image.values())
    log_rank_zero("images         %d, %d true masks", images, masks)
    sizes = " x ".join(f"{len(values)} {axis}" for axis, values in vars(rules.grid).items())
    log_rank_zero("grid           %d rules: %s", len(rules.grid), sizes)
    score_table = build_score_table(
        tuning_data.cache, tuning_data.truth_to_match(), rules.asked(), match=tuning_data.match
    )
    scores = scores_of(score_table, rules.on_grid, pooling=options.score.pooling, desc="grid")
    write_grid(folder / "grid.csv", rules.grid, scores)
    fold_of = stratified_folds(score_table.category_table(), folds=options.folds, seed=options.seed)
    methods = []
    for name, fit in rules.methods(options).items():
        log_rank_zero("fitting        %s", name)
        methods.append(cross_fit(score_table, name, fit, fold_of, pooling=options.score.pooling))
    results = compare_methods(methods, seed=options.seed)
    _write_rules(folder, tuning_data, results)
    write_results(folder / "methods.csv", results)
    write_class_table(folder / "classes.csv", score_table, results, tuning_data.classes)
    draw_heat_maps(folder / "grid.png", rules.grid, scores.mean(axis=1))
    draw_curves(folder / "curves.png", rules.grid, scores)
    draw_class_gains(folder / "classes.png", score_table, results, tuning_data.classes)
    _track(tuning_data, results, folder)
    if len(rules.grid.drop) > 1:
        log_rank_zero("\n%s", "\n".join(drop_set_lines(rules.grid, scores)))
    log_rank_zero("\n%s\n", "\n".join(result_lines(results, images=images, folds=options.folds)))
    for line in edge_lines(rules.grid, scores):
        log_rank_zero(line)
    best = best_method(results)
    log_rank_zero("tuned          %s: %s", folder / NAME, describe_rule(best.method.rule))
    if best.score.value == 0:
        log_rank_zero("score 0        no thresholds give a match: train more epochs before tuning")
    log_rank_zero("pictures       %s  %s  %s", *(folder / name for name in ("grid.png", "curves.png", "classes.png")))
    log_rank_zero("tables         %s  %s  %s", *(folder / name for name in ("methods.csv", "grid.csv", "classes.csv")))
    log_rank_zero("next           %s", _next_command(command, folder / NAME))
    return best.score.value


def _next_command(command: Command, file: Path) -> str:
    """Return the command that predicts with the tuned rule, the same models and the same views."""
    same = ("ensemble", "tta", "checkpoint=", "paths.runs=", "trust=")
    return command.only(same, f"postprocess={file}", verb="predict")


def _write_rules(folder: Path, tuning_data: TuningData, results: Sequence[MethodResult]) -> None:
    """Write each method's rule to methods/, and the best method's rule to tuned.yaml."""
    files = [(result, folder / "methods" / f"{result.method.name}.yaml") for result in results]
    for result, path in [*files, (best_method(results), folder / NAME)]:
        write_tuned(path, result.method.rule, tuning_data.classes, _about(tuning_data, result))


def _track(tuning_data: TuningData, results: Sequence[MethodResult], folder: Path) -> None:
    """Log the table of methods and the pictures to the experiment trackers of the run that trained the models."""
    stored = StoredRun.read(tuning_data.run) if tuning_data.run is not None else None
    trackers = stored.trackers() if stored is not None else []
    columns = ["method", "fitted", "cross-fitted", "low", "high", "rule"]
    rows: list[list[Cell]] = [
        [v.method.name, mean(v.method.fitted), v.score.value, v.score.low, v.score.high, describe_rule(v.method.rule)]
        for v in results
    ]
    log_table(trackers, "thresholds", columns, rows)
    pictures = {f"thresholds/{name}": folder / f"{name}.png" for name in ("grid", "curves", "classes")}
    log_files(trackers, {key: path for key, path in pictures.items() if path.is_file()})
    end_records(trackers)


def _about(tuning_data: TuningData, result: MethodResult) -> dict[str, Any]:
    """Return what a rule was tuned on, and its cross-fitted score."""
    manifest = tuning_data.cache.manifest
    return {
        "method": result.method.name,
        "cross_fitted_score": round(result.score.value, 6),
        "interval": [round(result.score.low, 6), round(result.score.high, 6)],
        "images": len(tuning_data.truth),
        "match": tuning_data.match,
        "members": [list(member) for member in manifest.members],
        "scales": [list(scale) for scale in manifest.scales],
        "flips": list(manifest.flips),
        "mask_grid": manifest.mask_grid,
        "date": datetime.date.today().isoformat(),
    }
