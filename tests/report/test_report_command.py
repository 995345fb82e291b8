"""`fashion-hydra report`, from folders to the page: the score, skipped sections, escaping, and rejected input."""

import csv
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from fashion_hydra.cli.main import main
from fashion_hydra.formats.submission import read_masks
from fashion_hydra.postprocess.rule_files import IN_FORCE, write_tuned
from fashion_hydra.report.results.analysis import PredictionFiles, analyse, paired_difference
from fashion_hydra.report.results.folders import kinds_of
from fashion_hydra.report.results.photo_folders import photos_of
from fashion_hydra.report.results.photos import Photos
from fashion_hydra.report.results.prediction_rule import rule_in_force
from fashion_hydra.report.results.read_folders import read_training, read_tuning

HEADER = "ImageId,EncodedPixels,ClassId\n"
LADDER = (
    "rung,name,change,images,score,low,high,gain,gain_low,gain_high,leaderboard,seconds\n"
    '1,plain,"nothing, yet",9,0.1,0.05,0.15,,,,0.21913,3\n2,tuned,<b>thresholds</b>,9,0.2,0.15,0.25,0.1,0.08,0.12,,\n'
)
GRID = "score_thr,iou_thr,mask_thr,min_area,max_per_image,drop,score\n" + "".join(
    f"{s},{i},{m},1,100,all,{s * m + i / 10}\n" for s in (0.3, 0.5) for i in (0.2, 0.4) for m in (0.4, 0.45, 0.5)
)
METHODS = (
    "method,fitted,cross_fitted,low,high,simpler,gain,gain_low,gain_high,rule\n"
    "untuned,0.1,0.1,0.05,0.15,,,,,score_thr=0.05\ngrid,0.3,0.25,0.2,0.3,untuned,0.15,0.1,0.2,score_thr=0.5\n"
)


def report(capsys, *arguments):
    """Run the command, check that stderr is empty, and return the page and stdout."""
    assert main(["report", *map(str, arguments)]) == 0
    told = capsys.readouterr()
    out = arguments[arguments.index("--out") + 1] if "--out" in arguments else arguments[0] / "report.html"
    return out.read_text(encoding="utf-8"), told.out


def data_of(page):
    """Return the gallery's index and the images' contents."""
    index = json.loads(re.search(r'id="index">(.*?)</script>', page)[1])
    blocks = re.findall(r'<script type="application/json" class="image">(.*?)</script>', page)
    assert len(index) == len(blocks)
    return index, [json.loads(block) for block in blocks]


def sections(page):
    return re.findall(r'<section id="(\w+)"', page)


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_prediction_alone(made, tmp_path, capsys):
    page, told = report(capsys, made.folder, "--out", tmp_path / "new" / "page.html", "--title", "mine")
    assert main(["score", str(made.folder / "truth.csv"), str(made.folder / "submission.csv")]) == 0
    score = capsys.readouterr().out.split()[-1]
    assert f"score {score}\n" in told
    assert re.search(r"<dt>score</dt><dd>([\d.]+)", page)[1] == score
    notes = [line for line in told.splitlines() if line.startswith("note")]
    assert len(notes) == 1
    assert "scored by ClassId: 38 of 196 true masks have attributes that no prediction has" in notes[0]
    assert sections(page) == ["scores", "classes", "errors", "gallery"]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["page.html"]
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
    index, blocks = data_of(page)
    truth, predicted = (read_masks(made.folder / name) for name in ("truth.csv", "submission.csv"))
    assert [image["id"] for image in index] == list(truth)
    assert np.mean([image["score"] for image in index]) == pytest.approx(float(score), abs=1e-6)
    for image, block in zip(index, blocks, strict=True):
        sides = [mask["side"] for mask in block["masks"]]
        assert sides.count("truth") == image["true"] == sum(map(len, truth[image["id"]].values()))
        assert sides.count("prediction") == image["predicted"] == sum(map(len, predicted[image["id"]].values()))
        assert block["photo"]
        assert all((mask["score"] is None) == (mask["side"] == "truth") for mask in block["masks"])
    kinds = {mask["kind"] for block in blocks for mask in block["masks"]}
    assert kinds >= {"hit", "poor mask", "wrong class", "background", "missed"}


def test_the_classes_are_those_of_the_score_command(made, capsys):
    page, _ = report(capsys, made.folder)
    assert main(["score", str(made.folder / "truth.csv"), str(made.folder / "submission.csv"), "--per-class"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:-2]]
    table = page.partition('<section id="classes"')[2].partition("</table>")[0]
    rows = {}
    for row in re.findall(r"<tr><th scope=.row.>(.*?)</tr>", table, re.DOTALL):
        name = re.sub(r"<i.*?</i>", "", row.partition("</th>")[0])
        if "with attributes" not in name:
            rows[name] = re.findall(r"<td[^>]*>(.*?)</td>", row)
    names = made.classes.by_id()
    plain = [line for line in lines if "_" not in line[0]]
    assert len(plain) > 5
    for class_id, score, images, n_true, n_predicted in plain:
        got = rows[names[int(class_id)]]
        assert float(got[0]) == pytest.approx(float(score), abs=5.1e-4)
        assert (got[4], got[5], got[7]) == (n_true, n_predicted, images)
    third = names[made.classes.ids[2]]
    assert rows[third][8] == "0.4"
    assert {row[8] for name, row in rows.items() if name != third} == {"0.3"}


def test_classes_taken_for_others_and_average_precision(made, capsys):
    page, _ = report(capsys, made.folder)
    assert main(["score", str(made.folder / "truth.csv"), str(made.folder / "submission.csv"), "--per-class"]) == 0
    counted = [line.split()[3:5] for line in capsys.readouterr().out.splitlines()[1:-2]]
    table = page.partition('<table class="heat confusion">')[2].partition("</table>")[0]
    rows = [
        [int(cell or 0) for cell in re.findall(r"<td[^>]*>(\d*)</td>", row)]
        for row in table.partition("<tbody>")[2].split("</tr>")[:-1]
    ]
    assert all(len(row) == len(rows) for row in rows)
    assert sum(map(sum, rows[:-1])) == sum(int(true) for true, _ in counted)
    assert sum(sum(row[:-1]) for row in rows) == sum(int(predicted) for _, predicted in counted)
    assert rows[-1][-1] == 0
    assert sum(rows[i][i] for i in range(len(rows))) > 10
    ap = page.partition('aria-label="Average precision"')[2].partition("</table>")[0]
    names = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', ap)
    assert names == ["prediction", "AP", "AP50", "AP75", "small", "medium", "large", "boundary", "recall"]
    values = dict(zip(names[1:], re.findall(r'<td class="n">(.*?)</td>', ap), strict=True))
    assert 0 < float(values["boundary"]) <= float(values["AP"]) < float(values["AP50"]) <= 1


def test_everything_in_one_page(made, tmp_path, capsys):
    run = write(tmp_path / "run", {
        "csv/version_0/metrics.csv": "epoch,step,train/loss,val/score\n0,9,2.5,\n0,9,,0.1\n1,19,1.5,\n",
        ".hydra/config.yaml": "data: {root: here}\nschedule: {epochs: 3}\n",
    })  # fmt: skip
    tuned = write(tmp_path / "tuned", {"methods.csv": METHODS, "grid.csv": GRID})
    ladder = write(tmp_path / "ladder", {"ladder.csv": LADDER})
    worse = tmp_path / "worse"
    shutil.copytree(made.folder, worse)
    rows = list(csv.DictReader((worse / "submission.csv").open()))
    with (worse / "submission.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "ClassId": "40"} for row in rows)
    page, told = report(capsys, ladder, run, tuned, made.folder, worse)
    assert sections(page) == ["scores", "ladder", "classes", "errors", "thresholds", "training", "gallery"]
    assert len(re.findall(r"images, score 0\.\d+$", told, re.M)) == 2
    assert "<b>thresholds</b>" not in page
    assert page.count('class="heat"') == 2
    assert "+0.1000<small" in page
    assert "<title>ladder: report</title>" in page
    assert "data here, epochs 3" in page


def test_a_gain_is_image_by_image(made):
    truth, predicted = (read_masks(made.folder / name) for name in ("truth.csv", "submission.csv"))
    first = analyse(PredictionFiles(made.folder, truth, predicted, None, None), pooling="class")
    other = analyse(PredictionFiles(made.folder, truth, truth, None, None), pooling="class")
    gain = paired_difference(first, other)
    assert gain.value == pytest.approx(1 - first.score.value)
    assert gain.low < gain.value < gain.high
    fewer = {name: truth[name] for name in list(truth)[:5]}
    some = analyse(PredictionFiles(made.folder, fewer, {}, None, None), pooling="class")
    assert some.missing == list(fewer)
    assert paired_difference(first, some) is None


def test_hostile_names_stay_text(hostile, capsys):
    folder, images, photo, bad = hostile
    page, told = report(capsys, folder, "--images", images, "--title", bad)
    index, blocks = data_of(page)
    assert [image["id"] for image in index] == [photo, bad]
    assert [block["photo"] is None for block in blocks] == [False, True]
    assert "1 of 2 photos not found" in told
    assert bad not in page
    assert "<img src=x" not in page
    assert "<b>p" not in page
    assert page.count("<script") == page.count("</script>") == 2 + 3
    palette = json.loads(re.search(r'id="palette">(.*?)</script>', page)[1])
    assert palette[0]["name"] == bad


def test_without_candidates_or_photos_the_rest_is_there(made, tmp_path, capsys):
    folder = tmp_path / "bare"
    folder.mkdir()
    shutil.copy(made.folder / "submission.csv", folder)
    page, told = report(capsys, folder, "--truth", made.folder / "truth.csv")
    assert "AP and the scores of masks are unknown" in told
    index, blocks = data_of(page)
    assert f"{len(index)} of {len(index)} photos not found" in told
    assert all(block["photo"] is None and block["fault"] for block in blocks)
    assert "<dt>AP</dt>" not in page


def test_scores_are_only_told_where_the_rule_makes_the_answer(made, tmp_path, capsys):
    folder = tmp_path / "changed"
    shutil.copytree(made.folder, folder)
    rule = (folder / "postprocess.yaml").read_text()
    (folder / "postprocess.yaml").write_text(rule.replace("mask_thr: 0.45", "mask_thr: 0.6"))
    page, told = report(capsys, folder)
    assert "do not reproduce its submission.csv" in told
    assert "Thresholds: not known" in page
    _, blocks = data_of(page)
    assert any(mask["score"] is None for b in blocks for mask in b["masks"] if mask["side"] == "prediction")


def test_a_resumed_run_is_one_curve(tmp_path):
    lines = ["step,train/loss\n9,3\n19,2\n29,9\n", "step,train/loss\n29,1.5\n39,1\n"]
    run = write(tmp_path, {f"csv/version_{i}/metrics.csv": text for i, text in enumerate(lines)})
    assert read_training(run).series == {"train/loss": [(9, 3.0), (19, 2.0), (29, 1.5), (39, 1.0)]}


def test_maps_hold_the_best_that_the_others_allow(tmp_path):
    tuning = read_tuning(write(tmp_path, {"methods.csv": METHODS, "grid.csv": GRID}))
    first, second = tuning.maps
    assert (first.rows, first.columns, second.columns) == ("score_thr", "mask_thr", "iou_thr")
    assert first.scores == [[s * m + 0.04 for m in (0.4, 0.45, 0.5)] for s in (0.3, 0.5)]
    assert second.scores == [[s * 0.5 + i / 10 for i in (0.2, 0.4)] for s in (0.3, 0.5)]
    assert (tuning.chosen, tuning.combinations) == ("grid", 12)


def test_photos_are_found_by_what_the_folder_says(made, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(made.images, root / "train")
    name = next(iter((root / "train").iterdir())).name
    run = write(tmp_path / "run", {".hydra/config.yaml": "data: {root: data}\n"})
    for config in (
        f"data: {{root: {root}, images: val}}",
        f"data: {{root: null, images: val}}\nensemble: {{run: {run}}}",
    ):
        files = {".hydra/config.yaml": config, ".hydra/hydra.yaml": f"hydra: {{runtime: {{cwd: {tmp_path}}}}}"}
        photos = photos_of(write(tmp_path / "p", files))
        assert photos.find(name) == (root / "train", name)
        assert photos.find(name.removesuffix(".jpg")) == (root / "train", name)
        assert photos.find("../" + name) is None or photos.thumbnail("none.jpg", None) is None
    assert photos_of(made.folder).find(name) == (made.images, name)


@pytest.mark.parametrize(("frame", "turned"), [((60, 90), True), ((90, 60), False), (None, True)])
def test_photos_lie_as_their_masks_do(tmp_path, frame, turned):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 90)).save(tmp_path / "a.jpg", exif=exif)
    thumbnail = Photos([tmp_path]).thumbnail("a.jpg", frame)
    assert thumbnail.size == ((60, 90) if turned else (90, 60))


def test_the_rule_of_a_folder(made, tmp_path):
    rule = rule_in_force(made.folder, made.classes, made.members)
    assert rule.label_score_thr == {2: 0.4}
    first = made.classes.ids[0]
    config = f"classes: {{drop: [{first}, 999]}}\npaths: {{tuned: none}}\npostprocess: {{score_thr: 0.4, iou_thr: 0.3, "
    config += f"mask_thr: 0.45, max_per_image: 9, class_score_thr: {{{made.classes.names[1]!r}: 0.6}}}}\n"
    rule = rule_in_force(write(tmp_path, {".hydra/config.yaml": config}), made.classes, made.members)
    assert (rule.score_thr, rule.max_per_image, rule.label_score_thr, rule.dropped_labels) == (0.4, 9, {1: 0.6}, (0,))
    assert rule_in_force(tmp_path / "none", made.classes, made.members) is None
    stepped = dataclasses.replace(rule, steps=("fill_holes",))
    write_tuned(tmp_path / IN_FORCE, stepped, made.classes, {})
    assert rule_in_force(tmp_path, made.classes, made.members) == stepped


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "none: no such folder"),
        ({"x.txt": ""}, r"nothing to report \(found: x\.txt\)"),
        ({"candidates/manifest.json": "{}"}, r"has candidates but no submission\.csv\. Run predict\.py out="),
        ({"submission.csv": HEADER + "a.jpg,1 9,6\n"}, r"truth\.csv: no such file.*Give --truth"),
        ({"submission.csv": HEADER, "truth.csv": HEADER}, "no images to score"),
        ({"submission.csv": HEADER, "truth.csv": HEADER + "a.jpg,1 9,6\n"}, "none of its images is in the truth"),
        ({"submission.csv": HEADER + "b.jpg,,23\n", "truth.csv": HEADER + "a.jpg,,23\n"}, "not in the truth"),
        ({"ladder.csv": "rung,name\n1,a\n"}, r"ladder\.csv: not in fashion_hydra's format \(KeyError\('change'\)\)"),
        ({"ladder.csv": "rung,name\n"}, r"ladder\.csv: .*no rows"),
        ({"csv/version_0/metrics.csv": "step\n", ".hydra/config.yaml": "a: ["}, r"config\.yaml: not readable as YAML"),
        ({"methods.csv": "method\ngrid\n"}, r"methods\.csv: not in fashion_hydra's format"),
        ({"csv/version_0/metrics.csv": "step,train/loss\nx,1\n"}, r"metrics\.csv: not in fashion_hydra's format"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, capsys, files, told):
    folder = write(tmp_path / "none", files)
    assert main(["report", str(folder), "--out", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert re.search(told, error), error
    assert error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_more_mistakes(made, tmp_path, capsys):
    assert main(["report", str(made.folder), "--out", str(tmp_path)]) == 2
    assert "a folder; name a file" in capsys.readouterr().err
    assert main(["report", str(made.folder), "--images", str(tmp_path / "none")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert kinds_of(made.folder) == ["prediction"]
