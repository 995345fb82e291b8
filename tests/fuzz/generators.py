"""Hypothesis strategies for each target: well-formed files with values that are invalid or at a limit."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.patches import EDIT
from tests.fuzz.targets import TARGETS

Bytes = st.SearchStrategy[bytes]

NUMBERS = st.one_of(
    st.integers(0, 60),
    st.integers(-5, 5000),
    st.sampled_from(
        [2**15, 2**16, 2**16 + 1, 2**27, 2**31 - 1, 2**31, 2**40, 2**63 - 1, 2**63, 2**64, 10**30, -(2**31)]
    ),
    st.floats(),
)
STRANGE = st.sampled_from(
    ["", " ", "\t", "0", "-1", "007", "1.5", "1e9", "nan", "inf", "\u0663", "\u00a0", "\0", "\ufeff", "\ud800", '"',
     "'", ",", "\r", "a\nb", "../x", "/etc/passwd", "C:\\x", "x" * 300, "9" * 5000, "None", "null", "true", "a.jpg",
     "b.jpg", "c", "${seed}", "*a", "&a", "!!python/name:os.system"]
)  # fmt: skip
TEXTS = st.one_of(STRANGE, st.text(max_size=8))
RUNS = st.one_of(
    st.lists(st.integers(1, 2100), max_size=12).map(lambda values: " ".join(map(str, values))),
    st.lists(st.one_of(NUMBERS.map(str), STRANGE), max_size=6).map(" ".join),
)
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\r\n') else text


def csv_of(columns: dict[str, st.SearchStrategy[str]]) -> Bytes:
    """Return tables with these columns, sometimes with other columns, extra cells or no header."""
    rows = st.lists(st.tuples(*columns.values()), max_size=8)
    header = st.one_of(
        st.just(list(columns)),
        st.lists(st.sampled_from([*columns, "X", ""]), max_size=7),
        st.permutations(list(columns)),
    )
    ends = st.sampled_from(["\n", "\r\n", "\r", ",\n"])

    def written(header: list[str], rows: list[tuple[str, ...]], end: str, raw: bool) -> bytes:
        lines = (",".join(cell if raw else quoted(cell) for cell in row) for row in (header, *rows))
        return "".join(line + end for line in lines).encode("utf-8", "surrogatepass")

    return st.builds(written, header, rows, ends, st.booleans())


IMAGES = st.one_of(st.sampled_from(["a.jpg", "b.jpg", "c.png", "a", "b", "d.jpg"]), TEXTS)
EDGES = st.one_of(st.sampled_from(["40", "50", "30", "20", "8", "9"]), NUMBERS.map(str), STRANGE)
CLASS_IDS = st.one_of(st.sampled_from(["6", "23", "6_28_77", "31", "06", "6_28_28", "99"]), TEXTS)
ATTRIBUTES = st.one_of(st.sampled_from(["28", "77,28", " 28 ", "28,,77"]), TEXTS)
_SHORT = {"ImageId": IMAGES, "EncodedPixels": RUNS, "ClassId": CLASS_IDS}
_LONG = {"ImageId": IMAGES, "EncodedPixels": RUNS, "Height": EDGES, "Width": EDGES, "ClassId": CLASS_IDS}


_FACTS = {str(i): st.one_of(IMAGES, EDGES) for i in range(9)}


def changed(seed: Any) -> st.SearchStrategy[Any]:
    """Return copies of a JSON-like value with some values replaced, removed or inserted at any depth."""

    @st.composite
    def make(draw: st.DrawFn) -> Any:
        def change(value: Any, depth: int) -> Any:
            if draw(st.integers(0, 9)) == 0:
                return draw(st.one_of(PLAIN, POLYGONS, COUNTS))
            if isinstance(value, dict):
                made = {key: change(inner, depth + 1) for key, inner in value.items() if draw(st.integers(0, 19))}
                return made | (draw(st.dictionaries(TEXTS, PLAIN, max_size=1)) if draw(st.integers(0, 9)) == 0 else {})
            if isinstance(value, list) and len(value) <= 60:
                return [change(inner, depth + 1) for inner in value if draw(st.integers(0, 19))]
            return value

        return change(seed, 0)

    return make()


def as_json(values: st.SearchStrategy[Any]) -> Bytes:
    return values.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))


POLYGONS = st.lists(st.lists(st.one_of(st.floats(-80, 80), NUMBERS), min_size=5, max_size=13), min_size=1, max_size=3)
COUNTS = st.builds(
    lambda size, counts: {"size": size, "counts": counts},
    st.one_of(st.sampled_from([[40, 50], [30, 20], [8, 9]]), PLAIN),
    st.one_of(
        st.lists(NUMBERS, max_size=6), st.lists(st.integers(0, 300), max_size=9),
        st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=12), PLAIN,
    ),
)  # fmt: skip
EDITS = st.lists(
    st.builds(EDIT.pack, st.just(0), st.integers(0, 65535), st.integers(0, 7), st.integers(0, 255)),
    min_size=1,
    max_size=6,
).map(b"".join)


def damaged(leads: int) -> Bytes:
    """Return edits of a valid file, see `tests.fuzz.patches`: `leads` bytes choose the file, the rest are edits."""
    raw = st.binary(max_size=60)
    return st.one_of(st.builds(lambda lead, edits: lead + edits, st.binary(min_size=leads, max_size=leads), EDITS), raw)


def seeded(name: str) -> Bytes:
    """Return a valid text file with a few bytes changed."""
    from tests.fuzz.patches import edited

    seeds = TARGETS[name].seeds()
    return st.builds(edited, st.sampled_from(seeds), EDITS)


def _mask_counts() -> Bytes:
    codes = st.integers(48, 111).map(lambda code: bytes([code]))
    return st.one_of(st.lists(codes, max_size=30).map(b"".join), st.binary(max_size=20), seeded("run-lengths of COCO"))


def _yaml() -> Bytes:
    import yaml
    from omegaconf import OmegaConf

    values = OmegaConf.to_container(OmegaConf.create(TARGETS["tuned.yaml"].seeds()[0].decode()))

    def written(value: Any) -> bytes:
        return yaml.dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")

    return st.one_of(changed(values).map(written), seeded("tuned.yaml"))


def _loaded(name: str) -> Bytes:
    return st.one_of(as_json(changed(json.loads(TARGETS[name].seeds()[0]))), seeded(name))


STRATEGIES: dict[str, Callable[[], Bytes]] = {
    "train.csv of 2019": lambda: st.one_of(csv_of(_LONG), seeded("train.csv of 2019")),
    "train.csv of 2020": lambda: st.one_of(csv_of({**_LONG, "AttributesIds": ATTRIBUTES}), seeded("train.csv of 2020")),
    "packed CSV": lambda: damaged(3),
    "label_descriptions.json": lambda: _loaded("label_descriptions.json"),
    "submission": lambda: st.one_of(csv_of(_SHORT), csv_of(_LONG), seeded("submission")),
    "submit-check": lambda: st.one_of(csv_of(_SHORT), seeded("submit-check")),
    "sample_submission.csv": lambda: csv_of({"ImageId": IMAGES, "EncodedPixels": RUNS}),
    "split.csv": lambda: st.one_of(csv_of({"ImageId": IMAGES, "fold": st.one_of(EDGES, STRANGE)}), seeded("split.csv")),
    "COCO JSON": lambda: _loaded("COCO JSON"),
    "COCO segmentation": lambda: st.one_of(as_json(st.one_of(POLYGONS, COUNTS, PLAIN)), seeded("COCO segmentation")),
    "run-lengths of Kaggle": lambda: RUNS.map(lambda text: text.encode("latin-1", "replace")),
    "run-lengths of COCO": _mask_counts,
    "pictures": lambda: damaged(2),
    "memory of images": lambda: st.one_of(
        csv_of({str(i): st.one_of(IMAGES, EDGES) for i in range(9)}), seeded("memory of images")
    ),
    "records": lambda: damaged(1),
    "checkpoint": lambda: damaged(3),
    "model of a checkpoint": lambda: _loaded("model of a checkpoint"),
    "weights": lambda: damaged(4),
    "candidates": lambda: damaged(3),
    "manifest of candidates": lambda: _loaded("manifest of candidates"),
    "calibration": lambda: _loaded("calibration"),
    "tuned.yaml": _yaml,
}
