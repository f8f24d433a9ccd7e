"""Modules of other frameworks become models, and are not touched."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import apparate_jax as apx
from apparate_jax.core import InputSpec
from apparate_jax.errors import ModelError
from apparate_jax.models import from_factory
from apparate_jax.models.wrap import input_specs, is_equinox
from tests.zoo import mlp, normal, variables_of

X = normal(0, 4, 64)
IMAGE = normal(0, 4, 3, 8, 8)


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        for _ in range(2):
            x = nn.BatchNorm(use_running_average=not train)(nn.Dense(64)(x))
            x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x)


class _NNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layer = nnx.Linear(64, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.drop(nnx.relu(self.norm(self.layer(x)))))


class _Equinox(eqx.Module):
    layers: list
    drop: eqx.nn.Dropout
    head: eqx.nn.Linear
    activation: object

    def __init__(self, key):
        keys = jax.random.split(key, 3)
        self.layers = [eqx.nn.Linear(64, 64, key=k) for k in keys[:2]]
        self.drop = eqx.nn.Dropout(0.5)
        self.head = eqx.nn.Linear(64, 3, key=keys[2])
        self.activation = jax.nn.gelu

    def __call__(self, x, *, key=None):
        for layer in self.layers:
            x = self.drop(self.activation(layer(x)), key=key)
        return self.head(x)


class _Stateful(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm
    head: eqx.nn.Linear

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.conv = eqx.nn.Conv2d(3, 8, 3, key=one)
        self.norm = eqx.nn.BatchNorm(8, "batch", mode="batch")
        self.head = eqx.nn.Linear(8, 3, key=two)

    def __call__(self, x, state):
        x, state = self.norm(self.conv(x), state)
        return self.head(jax.nn.relu(x).mean((1, 2))), state


def recomposed(model, inputs) -> np.ndarray:
    program = apx.trace(model.apply, model.params, *inputs)
    value = None
    for stage in program.split(range(len(program.sites))):
        value = stage(value, *inputs)
    return np.asarray(value)


def test_a_plain_function():
    case = mlp()
    model = apx.from_function(case.fn, case.params, inputs=list(case.inputs))
    assert (model.name, model.params) == ("fn", case.params)
    assert model.inputs == (InputSpec("input_0", (6,), "float32"),)
    np.testing.assert_array_equal(
        model.apply(case.params, X[:, :6]), case.fn(case.params, X[:, :6])
    )


def test_linen_with_statistics_and_dropout():
    variables = variables_of(_Linen(), X)
    model = apx.from_linen(_Linen(), variables, apply_kwargs={"train": False}, inputs=[X])
    expected = jax.jit(lambda v, x: _Linen().apply(v, x, train=False))(variables, X)
    assert model.name == "_Linen" and set(model.params) == {"params", "batch_stats"}
    np.testing.assert_array_equal(recomposed(model, [X]), expected)


def test_linen_needs_its_parameters():
    with pytest.raises(ModelError, match=r"collections \['batch_stats'\], expected 'params'"):
        apx.from_linen(_Linen(), {"batch_stats": {}})


def test_nnx_answers_in_evaluation_mode_and_is_not_touched():
    module = _NNX(nnx.Rngs(0))
    module.norm.mean[...] = normal(1, 64)
    before = nnx.state(module)
    model = apx.from_nnx(module, inputs=[X])
    assert not module.drop.deterministic and not module.norm.use_running_average
    assert set(model.params) >= {"layer/kernel", "norm/mean", "head/bias"}
    assert not any("rngs" in path or "drop" in path for path in model.params)

    answered = recomposed(model, [X])
    module.eval()
    graphdef, state = nnx.split(module)
    expected = jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, X)
    np.testing.assert_array_equal(answered, expected)
    jax.tree.map(np.testing.assert_array_equal, before["norm"], nnx.state(module)["norm"])


class _Layer(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(64, 64, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.drop(nnx.relu(self.linear(x)))


class _NNXScan(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.layers = nnx.vmap(_Layer, in_axes=0)(rngs.split(3))
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        run = nnx.scan(lambda x, layer: layer(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.layers))


def test_nnx_scans_over_layers_that_hold_random_generators():
    module = _NNXScan(nnx.Rngs(0))
    model = apx.from_nnx(module, inputs=[X])
    assert len(apx.trace(model.apply, model.params, X).sites) == 3
    module.eval()
    graphdef, state = nnx.split(module)

    @jax.jit
    def whole(state, x):
        return nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf, state))(x)

    np.testing.assert_array_equal(recomposed(model, [X]), whole(state, X))


def test_equinox_answers_in_inference_mode_and_is_not_touched():
    module = _Equinox(jax.random.key(0))
    model = apx.from_equinox(module, inputs=[X])
    assert not module.drop.inference
    assert model.name == "_Equinox"
    assert {p: v.shape for p, v in model.params.items() if "head" in p} == {
        "0/head/weight": (3, 64),
        "0/head/bias": (3,),
    }
    quiet = eqx.nn.inference_mode(module)
    np.testing.assert_array_equal(recomposed(model, [X]), jax.jit(jax.vmap(quiet))(X))
    doubled = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    assert np.abs(model.apply(doubled, X) - model.apply(model.params, X)).max() > 0.1


def test_equinox_with_the_state_of_batch_norm():
    module, state = eqx.nn.make_with_state(_Stateful)(jax.random.key(0))
    # Statistics as training leaves them.
    for seed in range(3):
        _, state = jax.vmap(module, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(
            normal(seed, 4, 3, 8, 8), state
        )
    model = apx.from_equinox(module, state=state, inputs=[IMAGE])
    quiet = eqx.nn.inference_mode(module)
    expected, _ = jax.jit(jax.vmap(quiet, in_axes=(0, None), out_axes=(0, None)))(IMAGE, state)
    for _ in range(2):
        # Channels first: XLA lays the convolution's neighbours out anew in every stage.
        np.testing.assert_allclose(recomposed(model, [IMAGE]), expected, rtol=1e-5, atol=1e-6)
    assert not module.norm.inference


def test_equinox_modules_that_want_more_arguments():
    class Wants(eqx.Module):
        inner: eqx.nn.Linear

        def __call__(self, x, *, key, scale):
            return self.inner(jnp.tanh(self.inner(x))) * scale + 0 * jax.random.normal(key)

    module = Wants(eqx.nn.Linear(64, 64, key=jax.random.key(0)))
    model = apx.from_equinox(
        module, call_kwargs={"key": jax.random.key(1), "scale": 2.0}, name="wants", inputs=[X]
    )
    assert model.name == "wants" and model.apply(model.params, X).shape == (4, 64)


def test_equinox_is_told_from_the_rest():
    assert is_equinox(_Equinox(jax.random.key(0)))
    assert not any(map(is_equinox, (_Linen(), _NNX(nnx.Rngs(0)), print, None)))
    with pytest.raises(ModelError, match="got a _Linen, expected an Equinox module"):
        apx.from_equinox(_Linen())


def test_inputs_are_specs_or_arrays():
    spec = InputSpec("x", (3,), "int32")
    assert input_specs([spec, X]) == (spec, InputSpec("input_1", (64,), "float32"))
    assert input_specs(None) == ()
    for wrong in ("text", np.float32(1)):
        with pytest.raises(ModelError, match="expected an InputSpec or an example array"):
            input_specs([wrong])


def stateless():
    return _Equinox(jax.random.key(0)), [X]


def stateful():
    return *eqx.nn.make_with_state(_Stateful)(jax.random.key(0)), [IMAGE]


def no_inputs():
    return _Equinox(jax.random.key(0))


@pytest.mark.parametrize(("factory", "inputs"), [("stateless", X), ("stateful", IMAGE)])
def test_a_factory_may_return_an_equinox_module(factory, inputs):
    model = from_factory(f"{__name__}:{factory}")
    assert model.source == {"kind": "python", "reference": f"{__name__}:{factory}"}
    assert [spec.shape for spec in model.inputs] == [inputs.shape[1:]]
    assert jax.eval_shape(model.apply, model.params, inputs).shape == (4, 3)


def test_a_factory_must_give_inputs_too():
    with pytest.raises(
        ModelError, match=r"returned \(_Equinox\), expected .*equinox module, inputs"
    ):
        from_factory(f"{__name__}:no_inputs")
