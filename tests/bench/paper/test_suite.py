"""Suite files: what is read, and what is refused with which words."""

import pytest

from apparate_jax.bench.paper.suite import Suite, Workload, kind_of, read_suite, suite_of
from apparate_jax.errors import ConfigError
from tests.bench import tiny

WHOLE = """
[[workload]]
name = "imdb"
kind = "text"
trace = "imdb.npz"
heavy = "more/pooler.npz"
checkpoint = "ckpt"
data = "stream.csv"

[[workload]]
name = "street-1"
kind = "images"
trace = "street.npz"
stream = "recorded"
pace = "fixed"
rate = 20
"""


def suite(folder, text):
    path = folder / "suite.toml"
    path.write_text(text)
    return read_suite(path)


def test_paths_are_relative_to_the_file(tmp_path):
    first, second = suite(tmp_path, WHOLE).workloads
    assert first.heavy == tmp_path / "more" / "pooler.npz" and first.kind == "text"
    assert first.data == tmp_path / "stream.csv" and first.arrivals is None
    assert (second.name, second.trace, second.heavy) == ("street-1", tmp_path / "street.npz", None)
    assert (first.stream, first.pace) == ("independent", "poisson")
    assert (second.stream, second.pace, second.rate) == ("recorded", "fixed", 20)
    assert first.rate is None


ONE = '[[workload]]\nname = "a"\nkind = "text"\ntrace = "a.npz"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no workloads: expected a table"),
        ("[[workload", "is no TOML"),
        ("title = 1", "has title, expected only tables"),
        ("workload = 3", "has one table workload, expected only tables"),
        ("workload = [3]", "workload 1 of .* is 3, expected a table"),
        (ONE + 'speed = "high"', r"workload 1 of .*: unknown keys \['speed'\]"),
        ('[[workload]]\nname = "a"\nkind = "text"', r"\['trace'\] missing"),
        (ONE + "heavy = 7", "expected text between quotes"),
        (ONE.replace('"text"', '"sound"'), "a: kind is 'sound', expected one of"),
        (ONE.replace('"a"', '"a/b"'), "is called 'a/b', expected letters"),
        (ONE + 'stream = "sorted"', "a: stream is 'sorted', expected one of"),
        (ONE + 'pace = "slow"', "a: pace is 'slow', expected one of"),
        (ONE + 'rate = "fast"', "expected text between quotes for each, and a number for rate"),
        (ONE + "rate = true", "expected text between quotes for each, and a number for rate"),
        (ONE + "rate = 0", "a: rate is 0, expected a number above 0"),
        (ONE + ONE, r"\['a'\] are there twice"),
        (ONE + 'data = "x.csv"', "a has data but no checkpoint"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        suite(tmp_path, text)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the suite"):
        read_suite(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"imdb: there is no .*imdb\.npz, its trace"):
        suite(tmp_path, WHOLE).check_files()


def test_bare_recordings_are_called_by_their_files(tmp_path):
    (one,) = suite_of([tmp_path / "imdb.npz"]).workloads
    assert (one.name, one.kind) == ("imdb", None)
    with pytest.raises(ConfigError, match="twice"):
        suite_of([tmp_path / "a.npz", tmp_path / "b" / "a.npz"])
    with pytest.raises(ConfigError, match="no workloads"):
        Suite(())


@pytest.mark.parametrize(
    ("model", "data", "kind"),
    [
        ("minilm-l6", "stream.csv", "text"),
        ("resnet18", "stream.parquet", "images"),
        ("mine", "street.mp4", "images"),
        ("mine", "stream.parquet", None),
        ("vit-bert", "x", None),
    ],
)
def test_the_kind_by_names(model, data, kind):
    assert kind_of(tiny.recording(model=model, workload=data)) == kind


def test_a_workload_needs_a_name(tmp_path):
    with pytest.raises(ConfigError, match="is called ''"):
        Workload("", "text", tmp_path)
