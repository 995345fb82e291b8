"""ladder.csv survives a write and a read, and tables without gains can be read."""

import pytest

from fashion_hydra.evaluation.bootstrap import Interval
from fashion_hydra.evaluation.ladder import Rung, read_ladder, write_ladder
from fashion_hydra.utils.errors import UserError

TABLE = """rung,name,change,images,score,low,high,gain,gain_low,gain_high,leaderboard,seconds
1,1_default,"one model, one view",9,0.100000,0.050000,0.150000,,,,0.21913,3.500
2,2_tuned,tuned,9,0.200000,0.150000,0.250000,0.100000,0.080000,0.120000,,
"""
RUNGS = [
    Rung("1", "1_default", "one model, one view", 9, Interval(0.1, 0.05, 0.15), None, 0.21913, 3.5),
    Rung("2", "2_tuned", "tuned", 9, Interval(0.2, 0.15, 0.25), Interval(0.1, 0.08, 0.12), None, None),
]


def test_a_ladder_is_written_and_read(tmp_path):
    write_ladder(tmp_path / "ladder.csv", RUNGS)
    assert (tmp_path / "ladder.csv").read_text() == TABLE
    assert read_ladder(tmp_path / "ladder.csv") == RUNGS


def test_an_older_table_has_no_gains(tmp_path):
    (tmp_path / "ladder.csv").write_text(
        "rung,name,change,images,score,low,high,leaderboard,seconds\n2,2_tuned,tuned,9,0.2,0.15,0.25,,\n"
    )
    assert read_ladder(tmp_path / "ladder.csv") == [
        Rung("2", "2_tuned", "tuned", 9, Interval(0.2, 0.15, 0.25), None, None, None)
    ]


@pytest.mark.parametrize("text", ["", "rung,name\n1,a\n", TABLE.replace("0.150000", "x"), "\xff\xfe"])
def test_a_damaged_table_is_refused(tmp_path, text):
    (tmp_path / "ladder.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"ladder\.csv: not in fashion_hydra's format"):
        read_ladder(tmp_path / "ladder.csv")
