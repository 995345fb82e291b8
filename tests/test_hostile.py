"""Untrusted files: the lighter cases of `tests.faults.hostile`, and a short run of each fuzz target."""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

import tests.fuzz.models  # noqa: F401 - registers targets
from fashion_hydra.utils.errors import UserError
from tests.faults.hostile import CASES, READERS, attempt
from tests.fuzz.generators import STRATEGIES
from tests.fuzz.targets import TARGETS
from tests.fuzz.targets import attempt as read

HEAVY = ("10^7", "10^6 rows", "300 MB", "324 MB", "512 MB", "400 MB", "4 GiB", "131,072", "largest allowed")
MESSAGES = {
    "train.csv: height": "bad-size",
    "train.csv: 60,000": "bad-size",
    "train.csv: a ClassId": "unknown-class",
    "train.csv: names": "outside-folder: ../../etc/passwd; missing-image: a",
    "train.csv: a pipe": r"no train\.csv",
    "PNG of": "too-large-image",
    "JPEG of": "too-large-image",
    "TIFF of": "too-large-image",
    "GIF of": "too-large-image",
    "BMP of": "too-large-image",
    "WebP of": "too-large-image",
    "a picture that is a program": "unreadable-image",
    "COCO: a polygon": "bad-segmentation",
    "COCO: an image": "bad-size",
    "COCO: counts": "bad-segmentation",
    "COCO: packed counts": "bad-segmentation",
    "COCO: 10^6 brackets": "nested too deeply",
    "checkpoint": "refused|is larger than its data in the file|at most 500000000",
    "safetensors": "not a readable safetensors file",
    "candidates": "damaged candidates",
    "tuned.yaml": r"aliases \(\*NAME\), or is nested too deeply",
    "predict": "outside-folder; outside-folder; missing-image; missing-image",
}


@pytest.mark.parametrize("name", [name for name in CASES if not any(part in name for part in HEAVY)])
def test_files_that_ask_for_too_much_are_refused(tmp_path, monkeypatch, name):
    make, reader = CASES[name]
    make(tmp_path)
    monkeypatch.setenv("FASHION_HYDRA_CACHE", str(tmp_path / "cache"))
    expected = next(expected_message for start, expected_message in MESSAGES.items() if name.startswith(start))
    with pytest.raises(UserError, match=expected):
        raise UserError(READERS[reader](tmp_path))  # reports faults of rows; unless the reader rejects the file


def test_the_script_measures_in_a_process_of_little_memory():
    answer, _, mebibytes = attempt("train.csv: 4 GiB without a line's end")
    assert "refused, the file must have at most" in answer
    assert mebibytes < 1000


@pytest.mark.parametrize("name", TARGETS)
def test_readers_return_or_raise_a_user_error(tmp_path, name):
    examples = 10 if name == "model of a checkpoint" else 40
    how = {"database": None, "deadline": None, "derandomize": True, "phases": [Phase.generate]}

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck), **how)
    @given(STRATEGIES[name]())
    def run(data):
        read(name, data, tmp_path)

    run()


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "records"])  # its seeds are edits
def test_targets_begin_with_good_files(tmp_path, name):
    first, *_ = TARGETS[name].seeds()
    TARGETS[name].read(first, tmp_path)
