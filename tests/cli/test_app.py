"""`fashion-hydra app` as a command: errors are reported in one line before a model is loaded."""

import socket
import sys

import pytest

from fashion_hydra.cli.main import main


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nonesuch"], "nonesuch: no such file, and no model of that name in models/ (there: street)"),
        (["--host", "203.0.113.1"], "--host 203.0.113.1 --port 0: "),
        (["--port", "70000"], "--port 70000: "),
        (["--tta", "none"], "tta=none: give one of "),
        (["--coco", "a.json"], "--coco, --csv and --yolo describe the layout of --data DIR. Give --data too"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_served(words, message, capsys):
    port = [] if "--port" in words else ["--port", "0"]
    assert main(["app", *words, *port]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_port_that_is_taken(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
    assert f"--host 127.0.0.1 --port {port}: [Errno 98] Address already in use. --port 0" in capsys.readouterr().err


def test_packages_that_are_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["app"]) == 2
    assert 'pip install "fashion-hydra[app]"' in capsys.readouterr().err
