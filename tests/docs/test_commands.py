"""Commands and options that the documents name are there, and every command has its guide."""

import re
import shlex

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from apparate_cli.main import app
from tests.docs.figures import DOCUMENTS, ROOT

GUIDE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
ROOT_COMMAND = get_command(app)
NO_COMMANDS = {"COMMAND", "|", "<"}
"""What stands in place of a command where any is meant."""


def commands(group=ROOT_COMMAND, name=()):
    """Every command by its words."""
    if not isinstance(group, TyperGroup):
        return {name: group}
    inner = (commands(one, (*name, word)) for word, one in group.commands.items())
    return {words: one for part in inner for words, one in part.items()}


COMMANDS = commands()


def options(command):
    found = {"--help", "-h"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def lines(text):
    """What is typed: in blocks, and in spans of code, without comments and continuations."""
    blocks = re.findall(r"^```.*?\n(.*?)^```", text, re.M | re.S)
    typed = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [
        re.split(r"\s#|\s&&|\s\|", line)[0]
        for line in (*typed, *spans)
        if line.startswith("apparate ")
    ]


def unknown(line):
    """Words of a typed line that are no command or no option of it."""
    _, *words = shlex.split(line)
    if not words or words[0].startswith("-") or words[0] in NO_COMMANDS:
        return []
    size = 2 if words[0] == "bench" else 1
    name = tuple(words[:size])
    if size == 2 and (len(words) == 1 or words[1] in NO_COMMANDS):
        return []
    if name not in COMMANDS:
        return [" ".join(name)]
    given = (word.split("=")[0] for word in words[size:] if re.match(r"--?[a-z]", word))
    return [word for word in given if word not in options(COMMANDS[name])]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands(document):
    for line in lines(document.read_text(encoding="utf-8")):
        assert not unknown(line), line


def sections():
    return dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", GUIDE, re.M | re.S))


@pytest.mark.parametrize("name", COMMANDS, ids=" ".join)
def test_guide(name):
    text = sections()[" ".join(name)]
    known = options(COMMANDS[name])
    for row in re.findall(r"^\| (`-.*?) \|", text, re.M):
        for option in re.findall(r"`(--?[a-z][a-z-]*)", row):
            assert option in known, row
    assert f"$ apparate {' '.join(name)} " in text


def test_what_is_unknown():
    assert unknown("apparate inject M --seq-length 5 -o ckpt") == ["--seq-length"]
    assert unknown("apparate bench report x") == ["bench report"]
    assert unknown("apparate serve C --set a.b=1 --no-grpc") == []
    assert lines("`apparate top URL`\n```\n$ apparate top URL --once  # now\n```\n") == [
        "apparate top URL --once ",
        "apparate top URL",
    ]
