"""The traces of the evaluation: their order, and that latencies come only from measuring."""

import dataclasses
import math
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from apparate_jax.bench.recording import load
from apparate_jax.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from apparate_jax.graph import trace
from apparate_jax.models.bert import BERT

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = (
    "traces",
    "_traces_streams",
    "_traces_profiles",
    "_traces_workloads",
    "_demo",
    "_common",
    "_azure",
)
ROWS, RAMPS, SEQ_LEN, VOCAB = 80, 160, 8, 40


@pytest.fixture(scope="module")
def bench():
    """The module ``traces``, which finds its neighbours as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import traces

        yield traces
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def streams(bench):
    return sys.modules["_traces_streams"]


@pytest.fixture(scope="module")
def profiles(bench):
    return sys.modules["_traces_profiles"]


def test_the_order_drifts_and_then_shifts(streams):
    labels = np.random.default_rng(1).integers(0, 4, 4000)
    order = streams.drifting(labels, (0, 2))
    assert np.array_equal(np.sort(order), np.arange(4000))
    seen = labels[order]
    shares = [np.isin(part, (0, 2)).mean() for part in np.array_split(seen[:2000], 10)]
    np.testing.assert_allclose(shares, 0.95 - 0.1 * np.arange(10), atol=0.05)
    sharp = seen[2000:]
    assert (np.diff(sharp) >= 0).all() and (np.bincount(sharp) > 400).all()
    assert np.array_equal(order, streams.drifting(labels, (0, 2)))
    assert not np.array_equal(order, streams.drifting(labels, (0, 2), seed=1))


def test_rows_of_a_class_are_mixed_in_the_drift(streams):
    order = streams.drifting(np.repeat([0, 1, 2, 3], 100), (0, 1))
    first = order[:200][np.isin(order[:200], np.arange(100))]
    assert len(first) == 50 and 15 < (np.diff(first) < 0).sum() < 35


def test_the_suite_names_what_is_recorded(bench):
    tables = tomllib.loads((BENCHMARKS / "paper.toml").read_text(encoding="utf-8"))["workload"]
    known = bench.all_workloads()
    heavy = {table["heavy"] for table in tables if "heavy" in table}
    assert {Path(one).stem for one in heavy} | {table["name"] for table in tables} == set(known)
    for table in tables:
        work = known[table["name"]]
        assert (BENCHMARKS / table["trace"]).resolve() == work.trace
        assert (BENCHMARKS / table["checkpoint"]).resolve() == work.checkpoint


def sentences(path, count, seed):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB, (count, SEQ_LEN), np.int32)
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids))
    return path


@pytest.fixture(scope="module")
def work(bench, tmp_path_factory):
    """A recorded workload of a small model with random weights."""
    workloads = sys.modules["_traces_workloads"]
    place = tmp_path_factory.mktemp("traces")
    sizes = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32, "seq_len": SEQ_LEN}
    model = BERT.make(BERT.configure({**sizes, "max_position_embeddings": SEQ_LEN}), 0)

    def base(path):
        program = trace(model.apply, model.params, *model.example_inputs(2))
        save_checkpoint(path, Checkpoint(model, program.sites))

    ramps = workloads.Ramps(
        base, lambda: sentences(place / "ramps.npz", RAMPS, 0), ("--data-frac", "1")
    )
    stream = sentences(place / "stream.npz", ROWS, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workloads, "TRACES", place)
        made = workloads.Traced("small", place / "checkpoint", lambda: stream, ramps)
        bench.make(made)
        yield made


@pytest.mark.slow
def test_a_new_recording_has_no_latencies(work, profiles):
    made = load(work.trace)
    assert len(made) == ROWS and made.workload == "stream.npz"
    assert not profiles.is_measured(made)
    assert all(math.isnan(shape.vanilla_ms) for shape in made.profile.shapes)
    assert profiles.belongs(made, load_checkpoint(work.checkpoint))


@pytest.mark.slow
def test_other_ramps_are_not_measured_for_a_recording(work, profiles, streams, tmp_path):
    made = load(work.trace)
    held_out = dataclasses.replace(made.validation, errors=made.validation.errors / 2)
    dataclasses.replace(made, validation=held_out).save(tmp_path / "other.npz")
    with pytest.raises(streams.MissingError, match=r"other\.npz was not recorded with the ramps"):
        profiles.measure(work.checkpoint, [tmp_path / "other.npz"])


@pytest.mark.slow
def test_measuring_changes_the_latencies_and_nothing_else(work, profiles):
    before = load(work.trace)
    profile = profiles.measure(work.checkpoint, [work.trace])
    after = load(work.trace)
    assert profiles.is_measured(after) and after.profile == profile
    assert all(shape.vanilla_ms > 0 for shape in profile.shapes) and profile.rest_ms
    np.testing.assert_array_equal(after.errors, before.errors)
    np.testing.assert_array_equal(after.final_predictions, before.final_predictions)


@pytest.mark.slow
def test_a_recording_is_kept_and_a_missing_one_is_skipped(bench, work, streams, capsys):
    def absent():
        raise streams.MissingError("there is no data")

    time = work.trace.stat().st_mtime_ns
    other = dataclasses.replace(work, name="other", stream=absent)
    bench.record_all([work, other])
    assert work.trace.stat().st_mtime_ns == time and not other.trace.exists()
    assert capsys.readouterr().out == "small: kept\nother: skipped, there is no data\n"
