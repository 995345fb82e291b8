"""`fashion-hydra check` reports each fault in one line and reports none for clean data."""

import csv
import re

from fashion_hydra.cli.main import main


def row(image="a.jpg", pixels="1 3 11 3", height=10, width=20, class_id="6"):
    return {"ImageId": image, "EncodedPixels": pixels, "Height": height, "Width": width, "ClassId": class_id}


def test_clean_data_is_two_lines_and_exit_code_0(kaggle_folder, capsys):
    root = kaggle_folder([row()], {"a.jpg": (10, 20)})
    assert main(["check", str(root)]) == 0
    summary, folder = capsys.readouterr().out.splitlines()
    assert summary == f"{root}: no faults; can be used: 1 images with 1 masks of 1 categories"
    assert folder == f"images: {root / 'train'}"


def test_each_fault_is_a_line_then_a_summary_and_exit_code_1(kaggle_folder, capsys, tmp_path):
    rows = [row(), row(), row(pixels="1 2 3"), row("missing.jpg"), row("../out.jpg"), row("b.jpg", "1 2", 9, 9)]
    root = kaggle_folder(rows, {"a.jpg": (10, 20), "b.jpg": (8, 9), "extra.jpg": (3, 3)})
    assert main(["check", str(root), "--report", str(tmp_path / "faults.csv")]) == 1
    fault_lines, summary = capsys.readouterr().out.split("\n\n")
    assert [re.sub(r" ->.*", "", line).split(": ", 2)[:2] for line in fault_lines.splitlines()] == [
        ["duplicate-row", "a.jpg row 3"],
        ["odd-runs", "a.jpg row 4"],
        ["missing-image", "missing.jpg row 5"],
        ["outside-folder", "../out.jpg row 6"],
        ["size-mismatch", "b.jpg row 7"],
        ["image-without-rows", "extra.jpg"],
    ]
    assert all(" -> " in line for line in fault_lines.splitlines())
    assert "5 faults, 1 remarks; can be used: 1 images with 1 masks" in summary
    with (tmp_path / "faults.csv").open() as stream:
        assert next(csv.DictReader(stream))["kind"] == "duplicate-row"
