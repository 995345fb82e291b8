"""`fashion-hydra score`, from arguments to output."""

import json
import re
import subprocess
import sys

import pytest
from scipy.stats import binom

from fashion_hydra.cli.main import main
from fashion_hydra.evaluation.competition_score import POOLINGS

HEADER = "ImageId,EncodedPixels,ClassId\n"


@pytest.fixture
def files(tmp_path):
    """Write two images whose scores are computed by hand.

    a: class 6 has IoU 9/10, which passes eight thresholds; class 31 is missed; so (0.8 + 0) / 2 = 0.4.
    b: class 6_28 is matched, class 9 is a false positive; so (1 + 0) / 2 = 0.5. The score is 0.45.
    Pooled over classes: a has 1 hit of 2 masks at eight thresholds and 0 hits at two, so 0.4; b has 1 of 2, so 0.5.
    """
    truth, submission = tmp_path / "truth.csv", tmp_path / "submission.csv"
    truth.write_text(HEADER + "a.jpg,1 10,6\na.jpg,31 5,31\nb.jpg,1 4,6_28\n")
    submission.write_text(HEADER + "a.jpg,1 9,6\nb.jpg,1 4,6_28\nb.jpg,40 4,9\n")
    return str(truth), str(submission)


@pytest.mark.parametrize("pooling", [[], ["--pooling", "image"]])
def test_the_last_line_is_the_score(files, capsys, pooling):
    assert main(["score", *files, *pooling]) == 0
    output = capsys.readouterr()
    assert output.out == "score 0.450000\n"
    assert output.err == ""


def test_pooling_matters_where_classes_differ_in_size(tmp_path, capsys):
    """One class is matched, and a class with three masks is missed: 1/2 by class, 1/4 pooled."""
    truth, submission = tmp_path / "truth.csv", tmp_path / "submission.csv"
    truth.write_text(HEADER + "a,1 9,6\na,11 9,7\na,21 9,7\na,31 9,7\n")
    submission.write_text(HEADER + "a,1 9,6\n")
    printed = []
    for pooling in POOLINGS:
        assert main(["score", str(truth), str(submission), "--pooling", pooling]) == 0
        printed.append(capsys.readouterr().out)
    assert printed == ["score 0.500000\n", "score 0.250000\n"]


def test_the_table_is_sorted_and_named(files, tmp_path, capsys):
    labels = tmp_path / "label_descriptions.json"
    categories = [{"id": 6, "name": "pants"}, {"id": 31, "name": "sleeve"}]
    attributes = [{"id": 28, "name": "capri"}]
    labels.write_text(json.dumps({"categories": categories, "attributes": attributes}))
    assert main(["score", *files, "--per-class", "--labels", str(labels)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["class", "score", "images", "truth", "predicted", "name"],
        ["6_28", "1.000000", "1", "1", "1", "pants:", "capri"],
        ["6", "0.800000", "1", "1", "1", "pants"],
        ["31", "0.000000", "1", "1", "0", "sleeve"],
        ["9", "0.000000", "1", "0", "1"],
        ["score", "0.450000"],
    ]


def test_the_interval_is_that_of_resampled_images(tmp_path, capsys):
    """A third of 30 images is right and the others are empty: a binomial distribution gives the interval."""
    (tmp_path / "truth.csv").write_text(HEADER + "".join(f"{i}.jpg,1 4,6\n" for i in range(30)))
    (tmp_path / "found.csv").write_text(
        HEADER + "".join(f"{i}.jpg,{'1 4' if i % 3 == 0 else ''},6\n" for i in range(30))
    )
    assert main(["score", str(tmp_path / "truth.csv"), str(tmp_path / "found.csv")]) == 0
    line, score = capsys.readouterr().out.splitlines()
    assert score == "score 0.333333"
    low, high = (float(edge) for edge in re.search(r"\[(.*), (.*)\]", line).groups())
    assert (low, high) == pytest.approx(binom(30, 1 / 3).ppf([0.025, 0.975]) / 30, abs=1 / 30)
    assert line.endswith("95 % of a bootstrap over 30 images")


@pytest.mark.parametrize(("n_missing", "n_named", "rest"), [(1, 1, ""), (20, 20, ""), (23, 20, " and 3 more")])
def test_missing_images_are_named(tmp_path, capsys, n_missing, n_named, rest):
    truth, submission = tmp_path / "truth.csv", tmp_path / "submission.csv"
    names = [f"m{i:02}.jpg" for i in range(n_missing)]
    truth.write_text(HEADER + "a.jpg,1 5,6\n" + "".join(f"{name},1 5,6\n" for name in names))
    submission.write_text(HEADER + "a.jpg,1 5,6\n")
    assert main(["score", str(truth), str(submission)]) == 0
    output = capsys.readouterr()
    assert f"{n_missing} of {n_missing + 1} images are missing" in output.err
    assert output.err.endswith(f": {', '.join(names[:n_named])}{rest}\n")
    assert output.out.splitlines()[-1] == f"score {1 / (n_missing + 1):.6f}"


def test_overlapping_masks_are_reported_and_scored(tmp_path, capsys):
    truth, submission = tmp_path / "truth.csv", tmp_path / "submission.csv"
    truth.write_text(HEADER + "a,1 5,6\n")
    submission.write_text(HEADER + "a,1 5,6\na,5 5,6\n")
    assert main(["score", str(truth), str(submission)]) == 0
    output = capsys.readouterr()
    assert "overlap" in output.err and "1 times, the first image a, class 6" in output.err
    assert output.out == "score 0.500000\n"


def test_mistakes_end_with_code_2_and_one_line(files, tmp_path, capsys):
    truth, submission = files
    wrong = tmp_path / "wrong.csv"
    wrong.write_text("id,rle\na,1 1\n")
    not_labels = tmp_path / "labels.json"
    not_labels.write_text("[]")
    for arguments, message in [
        ([truth, str(wrong)], f"fashion-hydra score: {wrong}: line 1: no column ImageId,"),
        ([truth, str(tmp_path / "absent.csv")], "absent.csv"),
        ([truth, submission, "--labels", str(not_labels)], "--per-class"),
        ([truth, submission, "--per-class", "--labels", str(not_labels)], "not Kaggle's label_descriptions"),
        ([str(wrong), submission], "(header: id,rle)"),
    ]:
        assert main(["score", *arguments]) == 2
        output = capsys.readouterr()
        assert message in output.err
        assert output.err.count("\n") == 1
        assert output.out == ""


def test_help_does_not_load_numpy():
    code = (
        "import sys; from fashion_hydra.cli.main import main\n"
        "try: main(['score', '--help'])\n"
        "except SystemExit: print('numpy' in sys.modules, 'pycocotools' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--per-class" in result.stdout
    assert result.stdout.splitlines()[-1] == "False False"
