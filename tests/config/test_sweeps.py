"""Multiruns: every job has a row in the table and its own folder, and resumes in this folder."""

import csv
import datetime
import shlex
from dataclasses import replace

import pytest

from fashion_hydra.config import resolvers
from fashion_hydra.config.command import Command
from fashion_hydra.training.run_folder import RunFolder
from fashion_hydra.utils.errors import UserError
from fashion_hydra.workflows import train as workflow
from tests.helpers import run_script


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """The calls that train.py makes in a temporary folder; a fake training returns seed / 10 as the score."""
    seen = []

    def pretend(options, command):
        seen.append((options, command))
        if options.seed == 13:
            raise UserError("seed=13: brings bad luck")
        return float("nan") if options.seed == 99 else options.seed / 10

    monkeypatch.setattr(workflow, "train", pretend)
    monkeypatch.chdir(tmp_path)
    return seen


def start(*words):
    return run_script("train.py", "experiment=demo", "data.root=wd", *words)


def table(folder):
    [path] = folder.glob("runs/**/sweep.csv")
    with path.open() as stream:
        return list(csv.DictReader(stream))


def folders(jobs):
    return [options.paths.output_dir for options, _ in jobs]


def test_a_failed_job_ends_neither_the_others_nor_the_table(jobs, tmp_path, capsys):
    assert start("-m", "seed=1,13,3") == 2
    rows = table(tmp_path)
    assert [(row["job"], row["seed"], row["score"]) for row in rows] == [
        ("2", "3", "0.3"),
        ("0", "1", "0.1"),
        ("1", "13", ""),
    ]
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "seed=13: brings bad luck" in rows[2]["error"]
    printed, said = capsys.readouterr()
    assert "failed" in printed
    assert said.count("brings bad luck") == 2  # when the job fails, and at the end
    assert len(jobs) == 3


@pytest.mark.parametrize("swept", ["name=a,b", "model=htc_tiny,htc_lite"])
def test_a_table_has_all_jobs_whatever_they_change(jobs, tmp_path, swept):
    assert start("-m", swept, "seed=1,2", *(["name=${choice:model}"] if "model" in swept else [])) == 0
    rows = table(tmp_path)
    assert [row["score"] for row in rows] == ["0.2", "0.2", "0.1", "0.1"]
    assert len({row["folder"] for row in rows}) == 4
    assert sorted(row["folder"] for row in rows) == sorted(folders(jobs))
    assert {tuple(sorted(row[key] for key in (swept.partition("=")[0], "seed"))) for row in rows} == {
        tuple(sorted((choice, seed))) for choice in swept.partition("=")[2].split(",") for seed in "12"
    }


def test_the_lowest_is_best_where_it_is(jobs, tmp_path):
    assert start("-m", "seed=2,1,3", "callbacks.checkpoint.mode=min") == 0
    assert [row["score"] for row in table(tmp_path)] == ["0.1", "0.2", "0.3"]


def test_no_score_comes_last(jobs, tmp_path, capsys):
    assert start("-m", "seed=99,2") == 0
    assert [row["score"] for row in table(tmp_path)] == ["0.2", ""]
    assert "nan" not in capsys.readouterr().out.lower()


def test_a_sweep_resumes_job_by_job(jobs, tmp_path):
    words = ["-m", "seed=1,2", "name=mine"]
    assert start(*words) == 0
    first = folders(jobs)
    jobs.clear()
    assert start(*words, "ckpt_path=last", "schedule.epochs=9") == 0
    assert folders(jobs) == first
    assert len(table(tmp_path)) == 2
    jobs.clear()
    assert start("-m", "seed=1,3", "name=mine", "ckpt_path=last") == 0  # a different sweep
    assert not set(folders(jobs)) & set(first)


def test_the_printed_command_resumes_the_job_itself(jobs, tmp_path):
    assert start("-m", "seed=1,2", "name=mine") == 0
    options, command = jobs[1]
    words = shlex.split(workflow.again(command, RunFolder(tmp_path / options.paths.output_dir)))
    (tmp_path / options.paths.output_dir / "checkpoints").mkdir()
    (tmp_path / options.paths.output_dir / "checkpoints" / "last.ckpt").touch()
    jobs.clear()
    assert words[0] == "python"
    assert run_script("train.py", *words[2:]) == 0
    [(again, _)] = jobs
    assert (again.seed, again.ckpt_path) == (2, "last")
    assert (tmp_path / again.paths.output_dir).samefile(tmp_path / options.paths.output_dir)


class Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("sweep", [(), ("-m",)])
def test_two_runs_of_one_second_have_two_folders(jobs, tmp_path, monkeypatch, sweep):
    monkeypatch.setattr(resolvers.datetime, "datetime", Frozen)
    for _ in range(3):
        assert start("name=mine", "seed=1", *sweep) == 0
    assert len({str(tmp_path / folder) for folder in folders(jobs)}) == 3
    names = ["2026-01-02_03-04-05", "2026-01-02_03-04-05-2", "2026-01-02_03-04-05-3"]
    assert sorted(path.name for path in (tmp_path / "runs" / "mine").iterdir()) == names
    jobs.clear()
    assert start("name=mine", "seed=1", *sweep, "hydra.sweep.dir=own" if sweep else "hydra.run.dir=own") == 0
    assert start("name=mine", "seed=1", *sweep, "hydra.sweep.dir=own" if sweep else "hydra.run.dir=own") == 0
    assert len(set(folders(jobs))) == 1


@pytest.mark.parametrize("name", ["1", "nan", "true", "a/b"])
def test_a_run_may_have_any_name(jobs, tmp_path, name):
    assert start(f"name={name}") == 0
    assert f"/runs/{name.capitalize() if name == 'true' else name}/".lower() in f"/{folders(jobs)[0]}".lower()


def test_commands_call_scripts_as_they_were_typed():
    command = Command(("name=a", "+trainer.max_time=1", "ckpt_path=x"), place="../code")
    assert (
        command.with_options("seed=2", without=["trainer.max_time"])
        == "python ../code/train.py name=a ckpt_path=x seed=2"
    )
    assert command.only(("name=",), verb="predict") == "python ../code/predict.py name=a"
    installed = replace(command, place=None)
    assert installed.only(("name=",), verb="predict") == "fashion-hydra predict name=a"
    assert installed.with_options("seed=2").startswith("fashion-hydra train ")
