"""``apparate train-ramps``: ramps in the checkpoint, or the checkpoint as it was."""

import shutil

import numpy as np
import pytest

from apparate_jax.checkpoint import load_checkpoint
from tests.cli import tiny
from tests.models import bert_directory

SENTENCES = ("a bad film", "a good film", "great story", "the story was awful", "it was poor")


@pytest.fixture
def copied(injected, tmp_path):
    """A checkpoint of its own, to write to."""
    return shutil.copytree(injected, tmp_path / "c")


def contents(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def write(path, rows=80, width=tiny.WIDTH, **arrays):
    x = np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32)
    np.savez(path, **({"x": x} | arrays))
    return path


def test_ramps_are_in_the_checkpoint_and_in_the_result(apparate, copied, data):
    done = apparate("train-ramps", copied, "--data", data, "--data-frac", 1, "--json", "-")
    assert done.status == 0
    result, saved = done.json, load_checkpoint(copied)
    assert result["active"] == list(saved.active) != []
    assert result["training"] == saved.training
    assert saved.training["examples"] + saved.training["validation_examples"] == 240
    found = [site["ramp"]["agreement"] for site in result["sites"]]
    assert found == [round(ramp.agreement, 5) for ramp in saved.ramps]
    assert min(found) > 0.5
    assert "training ramps" in done.err
    assert [entry.name for entry in copied.parent.iterdir()] == ["c"]


def test_the_same_seed_gives_the_same_ramps(apparate, copied, trained, data):
    assert apparate("train-ramps", copied, "--data", data, "--data-frac", 1).status == 0
    again = load_checkpoint(copied).ramps
    for one, other in zip(again, load_checkpoint(trained).ramps, strict=True):
        np.testing.assert_array_equal(one.params["kernel"], other.params["kernel"])


def test_for_people(apparate, copied, data):
    words = ("--data", data, "--limit", 100, "--data-frac", 1, "--placement", "even")
    done = apparate("train-ramps", copied, *words, "--max-ramps", 1)
    assert "tiny: 2 ramps, trained on 80 examples" in done.out
    assert f"next: apparate serve {copied}" in " ".join(done.out.split())
    assert len(load_checkpoint(copied).active) == 1


def test_texts(apparate, tmp_path):
    bert = bert_directory.write(tmp_path / "bert")
    assert apparate("inject", bert, "-o", tmp_path / "c", "--seq-len", 8).status == 0
    table = tmp_path / "reviews.csv"
    rows = [f"{SENTENCES[i % 5]} {SENTENCES[i // 5 % 5]},{i % 3}" for i in range(100)]
    table.write_text("\n".join(["review,label", *rows]))
    words = ("train-ramps", tmp_path / "c", "--data", table, "--data-frac", 1)
    done = apparate(*words)
    assert done.status == 1
    assert "has columns ['review', 'label'], expected 'text' among them (name another" in done.error
    done = apparate(*words, "--text-column", "review", "--json", "-")
    assert done.status == 0 and done.json["training"]["data"] == "reviews.csv"
    kinds = {site["ramp"]["kind"] for site in done.json["sites"]}
    assert kinds == {"first_token", "identity"}


def not_finite(path):
    x = np.random.default_rng(1).normal(size=(80, tiny.WIDTH)).astype(np.float32)
    x[3, 2] = np.nan
    return write(path, x=x)


def of_numbers_as_text(path):
    return write(path, x=np.full((80, tiny.WIDTH), "1"))


def truncated(path):
    write(path)
    path.write_bytes(path.read_bytes()[:300])
    return path


def pickled(path):
    return write(path, x=np.full((80, tiny.WIDTH), None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "no data file at"),
        (lambda path: write(path, rows=20), "100% of 20 samples are 20, expected at least 50"),
        (lambda path: write(path, width=5), "d.npz: x is [80, 5], expected [count, 6]"),
        (lambda path: write(path, x=np.zeros(80, "f")), "x is [80], expected [count, 6]"),
        (lambda path: write(path, rows=0), "the inputs have [0] rows"),
        (lambda path: write(path, x=np.zeros((80, 6), complex)), "x is complex128, expected"),
        (of_numbers_as_text, "expected float32 (or values that it can hold)"),
        (not_finite, "logits are not finite for 1 of 80 samples (rows [3])"),
        (truncated, "cannot read"),
        (pickled, "cannot read"),
        (lambda path: write(path, label=np.full(80, "z")), "labels must be class numbers or one"),
    ],
)
def test_data_that_does_not_fit(apparate, copied, tmp_path, make, message):
    before = contents(copied)
    path = make(tmp_path / "d.npz")
    words = ("train-ramps", copied, "--data", path, "--data-frac", 1, "--json", "-")
    done = apparate(*words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error
    assert contents(copied) == before


def test_arrays_of_other_names(apparate, copied, tmp_path):
    np.savez(tmp_path / "d.npz", y=np.zeros((80, 6), np.float32))
    done = apparate("train-ramps", copied, "--data", tmp_path / "d.npz")
    assert done.status == 1
    assert done.error == "d.npz has ['y'], expected the model's inputs ['x']: an array of each name"


def test_data_of_an_unknown_kind(apparate, copied, tmp_path):
    (tmp_path / "d.xlsx").write_text("")
    done = apparate("train-ramps", copied, "--data", tmp_path / "d.xlsx")
    assert done.status == 1 and "ends in '.xlsx', expected one of" in done.error


def test_texts_for_a_model_without_a_tokenizer(apparate, copied, tmp_path):
    (tmp_path / "d.csv").write_text("text\na\n")
    done = apparate("train-ramps", copied, "--data", tmp_path / "d.csv")
    assert done.status == 1 and "carries no tokenizer.json" in done.error


def test_weights_that_are_no_numbers(apparate, tmp_path, data):
    assert apparate("inject", "tests.cli.tiny:nan", "-o", tmp_path / "c").status == 0
    done = apparate("train-ramps", tmp_path / "c", "--data", data, "--data-frac", 1)
    assert done.status == 1
    assert "logits are not finite for 240 of 240 samples" in done.error
    assert load_checkpoint(tmp_path / "c").ramps == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data-frac", 0), "data_frac is 0.0, expected above 0 and at most 1"),
        (("--data-frac", 2), "data_frac is 2.0"),
        (("--limit", 0), "limit is 0, expected at least 1"),
        (("--max-ramps", -1), "max_ramps is -1"),
        (("--placement", "random"), "policy is 'random', expected one of ['validated', 'even']"),
        (("--kind", "pyramid"), "kind is 'pyramid', expected 'auto' or one of ["),
        (("--kind", "spatial_mean"), "spatial_mean"),
        (("--seed", -1), "seed is -1, expected at least 0"),
        (("--vary", -1), "vary -1 times, expected at least 1"),
    ],
)
def test_settings_out_of_range(apparate, copied, data, words, message):
    before = contents(copied)
    done = apparate("train-ramps", copied, "--data", data, "--data-frac", 1, *words)
    assert (done.status, done.out) == (1, "")
    assert message in done.error
    assert contents(copied) == before
