"""The entry point: help, version, exit statuses, one line per error, interruption."""

import json
import re
import signal
import subprocess
import sys
import sysconfig
from importlib.metadata import version
from pathlib import Path

import pytest

from apparate_cli import main
from tests.cli import tiny

ROOT = Path(__file__).parent.parent.parent
SCRIPT = Path(sysconfig.get_path("scripts")) / "apparate"
COMMANDS = (("inject",), ("train-ramps",), ("serve",), ("bench", "live"), ("inspect",))


def processed(*words, **options):
    return subprocess.run(
        [str(SCRIPT), *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_an_example_that_is_right(apparate, command, option):
    done = apparate(*command, option)
    assert (done.status, done.err) == (0, "")
    text = " ".join(done.out.split())
    example = re.search(r"Example: apparate (.*?) ╭", text)
    assert example is not None, text
    words = example[1].split()
    assert tuple(words[: len(command)]) == command
    # Every option of the example is one of the command's.
    used = {word for word in words if word.startswith("-") and word != "-"}
    assert used <= set(re.findall(r"--?[\w-]+", text.split("╭", 1)[1]))


def test_help_lists_every_command(apparate):
    text = apparate("--help").out
    assert all(command[0] in text for command in COMMANDS)
    assert "live" in apparate("bench", "--help").out


def test_version(apparate):
    assert apparate("--version") == (0, version("apparate-jax") + "\n", "")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Usage: "),
        (("frob",), "No such command 'frob'"),
        (("bench",), "Usage: "),
        (("bench", "dead"), "No such command 'dead'"),
        (("inject",), "Missing argument"),
        (("inject", tiny.REFERENCE), "Missing option"),
        (("inject", tiny.REFERENCE, "--frob"), "No such option"),
        (("inject", tiny.REFERENCE, "-o", "x", "--seq-len", "long"), "--seq-len"),
        (("train-ramps", "x"), "Missing option"),
        (("serve", "x", "--http-port", "http"), "--http-port"),
        (("bench", "live", "x", "--data", "y", "--rounds", "1.5"), "--rounds"),
        (("inspect", "a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_usage(apparate, words, message):
    done = apparate(*words)
    assert done.status == 2
    assert message in done.out + done.err
    assert "Traceback" not in done.err


def test_a_process_of_its_own_done(trained):
    done = processed("inspect", trained, "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["model"] == "tiny"


def test_a_process_of_its_own_failed(tmp_path):
    done = processed("inject", "bert-bas", "-o", tmp_path / "c", "--json", "-")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: unknown model 'bert-bas': did you mean 'bert-base'")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_traceback_comes_only_when_asked_for(apparate, monkeypatch):
    done = apparate("inspect", "no-such-model")
    assert done.status == 1 and done.error.startswith("unknown model 'no-such-model'")
    monkeypatch.setenv("APPARATE_DEBUG", "0")
    assert apparate("inspect", "no-such-model").error
    monkeypatch.setenv("APPARATE_DEBUG", "1")
    monkeypatch.setattr("sys.argv", ["apparate", "inspect", "no-such-model"])
    with pytest.raises(ValueError, match="unknown model 'no-such-model'"):
        main.run()


def test_an_error_in_our_own_code_keeps_its_traceback(monkeypatch):
    """Only a traceback explains what nobody expected."""
    monkeypatch.setattr("sys.argv", ["apparate", "inspect", "tests.cli.tiny:misbuilt"])
    with pytest.raises(ZeroDivisionError):
        main.run()


@pytest.mark.parametrize("debug", ["0", "1"])
def test_an_error_that_comes_of_a_ctrl_c(monkeypatch, capsys, debug):
    """JAX's caches make another error of what is raised while they compare keys."""
    monkeypatch.setenv("APPARATE_DEBUG", debug)
    monkeypatch.setattr("sys.argv", ["apparate", "inspect", "tests.cli.tiny:interrupted"])
    if debug == "1":
        with pytest.raises(ZeroDivisionError):
            main.run()
        return
    with pytest.raises(SystemExit) as left:
        main.run()
    assert left.value.code == main.INTERRUPTED
    assert capsys.readouterr().err == "interrupted; nothing half-written was left behind\n"


def test_what_is_typed_is_shown_as_it_is(apparate):
    """Neither markup nor pictures: rich would make one of ``:b:`` and drop ``[bold]``."""
    done = apparate("inspect", "a:b:[bold]c")
    assert done.error.startswith("cannot import 'a:b:[bold]c'")


def test_ctrl_c(trained, data):
    """While the benchmark runs, long before it is done."""
    words = ("bench", "live", trained, "--data", data, "--batch-sizes", "1", "--load-frac", "0.05")
    with subprocess.Popen(
        [str(SCRIPT), *map(str, words), "--round-seconds", "100"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if line.startswith("compiling stages"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == main.INTERRUPTED == 130
    assert out == ""
    assert err.splitlines()[-1] == "interrupted; nothing half-written was left behind"
    assert "Traceback" not in err


BARE = """
import signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "apparate_cli.main":
            try:
                signal.raise_signal(signal.SIGINT)
            except:
                pass
sys.meta_path.insert(0, Finder())
from apparate_cli import entry
sys.argv = ["apparate", "--version"]
entry.run()
"""


def test_ctrl_c_while_it_imports():
    """Neither a traceback nor lost in a bare ``except`` of an import."""
    code = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{BARE}"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interruption_that_is_ignored_stays_ignored():
    code = f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n{BARE}"
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, version("apparate-jax") + "\n")
