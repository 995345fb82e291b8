"""Descriptions of options for `--help`, from the comments in conf/."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from fashion_hydra.config.places import CONF

CONFIG_TITLE = "== Config =="
"""Line of Hydra's help after which it prints the composed config."""
_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?P<value>.*?)(?:\s+#\s(?P<comment>.*))?$")


def describe_options(text: str, config_name: str) -> str:
    """Append the comment of conf/ to each option of the config in a help text.

    Args:
        text: Hydra's help text, with the composed config as YAML after `CONFIG_TITLE`.
        config_name: name of the main config in conf/.

    Returns:
        The text with comments.
    """
    head, title, config = text.partition(CONFIG_TITLE)
    if not title:
        return text
    comments, lines = _comments(config_name), config.splitlines()
    for i, name in _options(lines):
        if name in comments:
            lines[i] += f"  # {comments[name]}"
    return f"{head}{title}" + "\n".join(lines) + "\n"


def _comments(config_name: str) -> dict[str, str]:
    """Return option -> comment, from the main config and the groups; the first file that explains an option counts."""
    main = CONF / f"{config_name}.yaml"
    included = [CONF / f"{name}.yaml" for name in re.findall(r"^  - (\w+)$", main.read_text(encoding="utf-8"), re.M)]
    found: dict[str, str] = {}
    for file in [main, *filter(Path.is_file, included), *sorted(CONF.glob("*/**/*.yaml"))]:
        package = _package(file)
        if package is None:
            continue
        lines = file.read_text(encoding="utf-8").splitlines()
        comments = {i: match["comment"] for i, line in enumerate(lines) if (match := _LINE.match(line))}
        for i, name in _options(lines):
            if comments[i] and not name.startswith("defaults"):
                found.setdefault(f"{package}{name}", comments[i])
    return found


def _package(file: Path) -> str | None:
    """Return the prefix of a file's options in the composed config, or None for files that only override others."""
    folders = file.parent.relative_to(CONF).parts
    if folders[:1] in (("experiment",), ("hparams_search",), ("debug",)):
        return None
    return "".join(f"{folder}." for folder in folders)


def _options(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each line of YAML that begins an option, and the option's full name."""
    open_keys: list[tuple[int, str]] = []
    for i, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        while open_keys and open_keys[-1][0] >= indent:
            open_keys.pop()
        open_keys.append((indent, match["key"]))
        yield i, ".".join(key for _, key in open_keys)
