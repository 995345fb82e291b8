"""`fashion-hydra compare`: score tuned rules on images that were not used for tuning."""

import argparse
from pathlib import Path

from fashion_hydra.utils.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("tuned", metavar="TUNED", type=Path, help="a folder that tune_thresholds.py wrote")
    parser.add_argument("predicted", metavar="PREDICTED", type=Path, help="a folder that predict.py wrote")
    parser.add_argument(
        "--truth",
        metavar="TRUTH.csv",
        type=Path,
        help="ground-truth masks of the images, a train.csv or a submission (default: PREDICTED/truth.csv)",
    )
    parser.add_argument(
        "--pooling", choices=("class", "image"), default="class", help="see `fashion-hydra score --help`"
    )
    parser.add_argument(
        "--match",
        choices=("class_id", "category"),
        help="what must be equal, see `fashion-hydra score --help` (default: as in tuning)",
    )


def run(args: argparse.Namespace) -> int:
    """Score each method's rule on the candidates of the predicted images; print a table, simplest method first."""
    from fashion_hydra.evaluation.bootstrap import bootstrap
    from fashion_hydra.evaluation.competition_score import mean
    from fashion_hydra.evaluation.matching import CLASS_ID, masks_to_match
    from fashion_hydra.formats.submission import read_masks
    from fashion_hydra.inference.candidate_cache import CandidateCache
    from fashion_hydra.postprocess.rule_files import NAME, method_files, read_tuned, rule_of
    from fashion_hydra.tuning.build import build_score_table

    files = method_files(args.tuned)
    truth_file = args.truth or args.predicted / "truth.csv"
    if not truth_file.is_file():
        raise UserError(f"{truth_file}: no such file. Give --truth TRUTH.csv, the true masks of the predicted images")
    cache = CandidateCache(args.predicted / "candidates")
    classes = cache.manifest.classes
    rules = {file.stem: rule_of(file, classes) for file in files}
    tuned_for = (read_tuned(args.tuned / NAME).get("about") or {}).get("match", CLASS_ID)
    match = args.match or tuned_for
    truth = masks_to_match(read_masks(truth_file), match)
    score_table = build_score_table(cache, truth, list(rules.values()), match=match)
    scores = {name: score_table.image_scores(rule, pooling=args.pooling) for name, rule in rules.items()}
    first_name = next(iter(scores))
    width = max(map(len, scores))
    print(f"{len(score_table)} images; 95% intervals over images; gain over {first_name}, image by image")
    for name, of_rule in scores.items():
        interval, gain = bootstrap(of_rule, seed=0), bootstrap(of_rule - scores[first_name], seed=0)
        line = f"{name:{width}}  {mean(of_rule):.6f}  [{interval.low:.4f}, {interval.high:.4f}]"
        print(line + (f"  {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]" if name != first_name else ""))
    return 0
