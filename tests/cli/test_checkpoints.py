"""Every command that takes a checkpoint refuses one that is not whole or not of its model."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from apparate_jax import manifest
from tests.cli import tiny


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "c")


def absent(path):
    shutil.rmtree(path)


def interrupted(path):
    (path / "manifest.json").unlink()


def cut_off(path):
    file = path / "manifest.json"
    file.write_bytes(file.read_bytes()[:200])


def edited(path):
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"tiny"', '"tidy"'))


def rewritten(path, **changes):
    """As another version or another model would have written it, with sound checksums."""
    content = json.loads((path / "manifest.json").read_text())
    content.pop("checksum")
    content.pop("files")
    (path / "manifest.json").unlink()
    manifest.write_manifest(path, {**content, **changes})


def flipped(path):
    file = max(
        (f for f in (path / "params").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def of_another_version(path):
    content = json.loads((path / "manifest.json").read_text())
    content["format"], content["apparate_jax"] = 99, "7.0"
    (path / "manifest.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def of_another_model(path):
    content = json.loads((path / "manifest.json").read_text())
    rewritten(path, model={**content["model"], "source": _source("tests.cli.tiny:wider")})


def of_a_lost_model(path):
    content = json.loads((path / "manifest.json").read_text())
    rewritten(path, model={**content["model"], "source": _source("tests.cli.tiny:lost")})


def _source(reference):
    return {"kind": "python", "reference": reference}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (absent, "no checkpoint at "),
        (interrupted, "holds no manifest.json: it is no checkpoint, or writing it was interrupted"),
        (cut_off, "cannot be read"),
        (edited, "is damaged or was edited: make it again with apparate inject"),
        (flipped, "is damaged, its content changed: make it again"),
        (of_another_version, "has format 99, this version of apparate-jax reads format"),
        (of_another_model, "was made from another model than 'tiny' is now (3 parameters gone"),
        (of_a_lost_model, "cannot be made again: cannot import 'tests.cli.tiny:lost'"),
    ],
)
@pytest.mark.parametrize("command", ["train-ramps", "serve", "bench"])
def test_damage(apparate, copied, data, command, damage, message):
    words = {
        "train-ramps": ("train-ramps", copied, "--data", data, "--json", "-"),
        "serve": ("serve", copied, "--http-port", 0),
        "bench": ("bench", "live", copied, "--data", data, "--json", "-"),
    }[command]
    damage(copied)
    done = apparate(*words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error


@pytest.mark.parametrize("damage", [flipped, of_another_model])
def test_inspect_refuses_too(apparate, copied, damage):
    damage(copied)
    done = apparate("inspect", copied, "--json", "-")
    assert (done.status, done.out) == (1, "") and str(copied) in done.error


@pytest.mark.parametrize("command", [("serve",), ("bench", "live", "--data")])
def test_ramps_come_first(apparate, injected, data, command):
    words = (*command, data) if "--data" in command else command
    done = apparate(*words, injected)
    assert done.status == 1
    expected = f"{injected} has no ramps yet: run apparate train-ramps {injected} --data ..."
    assert done.error == f"the checkpoint {expected}"


def test_a_model_whose_sites_changed(apparate, copied, data):
    content = json.loads((copied / "manifest.json").read_text())
    sites = [{**site, "name": f"old {site['name']}"} for site in content["sites"]]
    rewritten(copied, sites=sites)
    for words in (("serve", copied, "--http-port", 0), ("train-ramps", copied, "--data", data)):
        done = apparate(*words)
        assert (done.status, done.out) == (1, "")
        assert "inject and train it again" in done.error


def test_a_model_whose_lines_moved(apparate, monkeypatch, tmp_path, data):
    """A comment above the model's code costs nobody the ramps, nor the recording of them."""
    monkeypatch.syspath_prepend(tmp_path)
    model, made, trace = tmp_path / "mine.py", tmp_path / "c", tmp_path / "t.npz"
    code = Path(tiny.__file__).read_text()

    def after(comment, *words):
        model.write_text(comment + code)
        sys.modules.pop("mine", None)
        assert apparate(*words).status == 0

    shape = ("--batch-sizes", 1, "--ramp-budget", 100)
    after("", "inject", "mine:mlp", "-o", made)
    after("# One line.\n", "train-ramps", made, "--data", data, "--data-frac", 1)
    after("# Two\n# lines.\n", "bench", "record", made, "--data", data, *shape, "-o", trace)
    live = ("bench", "live", made, "--data", data, *shape, "--rounds", 1, "--round-seconds", 0.2)
    after("# Three\n" * 3, *live, "--system", "paper", "--trace", trace)
    assert sys.modules.pop("mine").__file__ == str(model)


def test_a_model_is_no_checkpoint(apparate, data):
    done = apparate("bench", "live", tiny.REFERENCE, "--data", data)
    assert done.status == 1
    assert done.error.startswith(f"no checkpoint at {Path.cwd() / tiny.REFERENCE}: make one with")


def test_trained_ramps_are_replaced_only_when_that_is_said(apparate, copied):
    before = (copied / "manifest.json").read_bytes()
    done = apparate("inject", "tests.cli.tiny:no_such", "-o", copied)
    assert done.status == 1
    assert done.error == (
        f"the checkpoint {copied} has 2 trained ramps, which would be lost: name another place "
        "with -o, or add --replace"
    )
    assert (copied / "manifest.json").read_bytes() == before
    assert apparate("inject", tiny.REFERENCE, "-o", copied, "--replace").status == 0
    assert json.loads((copied / "manifest.json").read_text())["ramps"] == []


@pytest.mark.parametrize("damage", [cut_off, edited, flipped])
def test_what_is_damaged_can_be_made_again(apparate, copied, damage):
    damage(copied)
    assert apparate("inject", tiny.REFERENCE, "-o", copied).status == 0
    assert json.loads((copied / "manifest.json").read_text())["ramps"] == []


def test_what_has_no_manifest_is_not_touched(apparate, copied):
    interrupted(copied)
    before = sorted(copied.rglob("*"))
    done = apparate("inject", tiny.REFERENCE, "-o", copied, "--replace")
    assert done.status == 1 and "is there and is no checkpoint" in done.error
    assert sorted(copied.rglob("*")) == before


def test_a_checkpoint_without_ramps_is_replaced(apparate, injected, tmp_path):
    place = shutil.copytree(injected, tmp_path / "c")
    assert apparate("inject", tiny.REFERENCE, "-o", place).status == 0
