import jax
import jax.numpy as jnp
import numpy as np
import pytest

from apparate_jax.core import InputSpec, Model
from apparate_jax.data import ArrayDataset
from apparate_jax.errors import DataError, NumericsError, RampError
from apparate_jax.graph import trace
from apparate_jax.ramps.features import collect_features
from apparate_jax.ramps.heads import pool
from tests.ramps.tiny import sentences, tiny_encoder

LIMITS = {"batch_size": 4, "max_bytes": 2**20}
KINDS = {0: "masked_mean", 2: "first_token", 3: "identity"}


def collect(program, model, inputs, kinds, **options):
    data = ArrayDataset("sentences", tuple(inputs))
    with collect_features(program, model, data, kinds, **{**LIMITS, **options}) as features:
        return features


@pytest.mark.parametrize("count", [3, 8, 11])
def test_features_are_the_pooled_values_of_every_sample(count):
    tiny = tiny_encoder()
    inputs = sentences(count)
    features = collect(tiny.program, tiny.model, inputs, KINDS)
    values, logits = jax.jit(tiny.program.rebatch(count).taps(list(KINDS)))(*inputs)
    assert features.sites == (0, 2, 3) and features.kinds == tuple(KINDS.values())
    np.testing.assert_allclose(features.logits, logits, rtol=1e-4, atol=1e-5)
    for kind, value, table in zip(features.kinds, values, features.pooled, strict=True):
        expected = pool(kind, value, jnp.asarray(inputs[1]))
        np.testing.assert_allclose(table, expected, rtol=1e-4, atol=1e-5)


def test_features_on_disk_are_the_same_and_leave_nothing(tmp_path):
    tiny, inputs = tiny_encoder(), ArrayDataset("sentences", sentences(11))
    in_memory = collect(tiny.program, tiny.model, inputs.inputs, KINDS)
    place = tmp_path / "not" / "yet"
    with collect_features(
        tiny.program, tiny.model, inputs, KINDS, **LIMITS, cache_dir=place
    ) as features:
        assert [path.name for path in place.rglob("*.f32")] == ["features.f32"]
        np.testing.assert_array_equal(features.table, in_memory.table)
    assert list(place.iterdir()) == []


def test_only_the_first_samples_are_run():
    tiny, inputs = tiny_encoder(), sentences(11)
    all_of_them = collect(tiny.program, tiny.model, inputs, KINDS)
    some = collect(tiny.program, tiny.model, inputs, KINDS, samples=6)
    np.testing.assert_allclose(some.table, all_of_them.table[:6], rtol=1e-5, atol=1e-6)


def test_the_size_is_announced_before_the_model_runs():
    tiny, seen = tiny_encoder(), []
    collect(
        tiny.program,
        tiny.model,
        sentences(10),
        KINDS,
        announce=seen.append,
        progress=lambda done, total, what: seen.append(done),
    )
    numbers = sum(64 for _ in KINDS) + 2
    size = f"{10 * numbers * 4 / 2**20:.1f} MiB"
    assert seen[0] == f"feature cache: 10 samples x {numbers} numbers, {size} in memory"
    assert seen[1:] == [4, 8, 10]


def test_progress_ends_at_the_number_of_samples():
    seen = []
    tiny = tiny_encoder()
    collect(
        tiny.program,
        tiny.model,
        sentences(10),
        KINDS,
        progress=lambda done, total, what: seen.append((done, total)),
    )
    assert seen == [(4, 10), (8, 10), (10, 10)]


def test_rows_that_are_not_finite_are_named():
    params = {"a": np.ones((4, 8), np.float32), "b": np.ones((8, 2), np.float32)}

    def fn(params, x):
        return jnp.tanh(x @ params["a"]) @ params["b"]

    model = Model("m", fn, params, (InputSpec("x", (4,), "float32"),))
    program = trace(fn, params, np.ones((2, 4), np.float32))
    x = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    x[[3, 7], 1] = np.nan
    with pytest.raises(NumericsError, match=r"logits are not finite for 2 of 9.*rows \[3, 7\]"):
        collect(program, model, [x], {0: "identity"})


def test_a_value_that_overflows_is_named_by_its_site():
    params = [np.full(shape, 3e38, np.float32) for shape in ((4, 8), (8, 8), (8, 2))]

    def fn(params, x):
        x = jnp.maximum(x @ params[0], 0.0)
        return jnp.tanh(jnp.tanh(x @ params[1]) @ params[2])

    x = np.ones((3, 4), np.float32)
    model = Model("m", fn, params, (InputSpec("x", (4,), "float32"),))
    program = trace(fn, params, x)
    assert np.isfinite(jax.jit(fn)(params, x)).all()
    with pytest.raises(NumericsError, match=r"values at .* not finite for 3 of 3"):
        collect(program, model, [x], {0: "identity"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ids, mask: (ids,), "1 arrays for a model of 2 inputs"),
        (
            lambda ids, mask: (ids[:, :5], mask),
            r"input 0 is int32\[samples, 5\], .* int32\[samples, 12\]",
        ),
        (lambda ids, mask: (ids, mask.astype(np.float32)), "input 1 is float32"),
        (lambda ids, mask: (ids, mask[:2]), r"\[6, 2\] rows"),
        (lambda ids, mask: (ids[:0], mask[:0]), "not 0"),
    ],
)
def test_data_that_does_not_fit_the_model(change, message):
    tiny = tiny_encoder()
    with pytest.raises(DataError, match=message):
        collect(tiny.program, tiny.model, change(*sentences(6)), KINDS)


def test_memory_is_checked_before_the_model_runs():
    tiny = tiny_encoder()
    with pytest.raises(RampError, match="max_cache_bytes"):
        collect(tiny.program, tiny.model, sentences(40), KINDS, max_bytes=1000)


def centred(params, x):
    """A batch norm in training mode: each input is taken against the others of its batch."""
    hidden = jnp.tanh((x - x.mean(0)) @ params["first"])
    return hidden @ params["head"]


def alone(params, x):
    return jnp.tanh(x @ params["first"]) @ params["head"]


@pytest.mark.parametrize(
    ("fn", "count", "told"),
    [(centred, 10, True), (centred, 2, True), (centred, 1, False), (alone, 10, False)],
)
def test_answers_that_depend_on_the_batch_are_told(fn, count, told):
    rng = np.random.default_rng(0)
    params = {"first": rng.normal(size=(6, 8)), "head": rng.normal(size=(8, 3))}
    params = {name: value.astype(np.float32) for name, value in params.items()}
    x = rng.normal(size=(count, 6)).astype(np.float32)
    model, lines = Model("net", fn, params, (InputSpec("x", (6,), "float32"),)), []
    program = trace(fn, params, np.zeros((2, 6), np.float32))
    collect(program, model, [x], {0: "identity"}, announce=lines.append)
    assert len(lines) == 1 + told
    assert all("depend on the others in its batch" in line for line in lines[1:])
