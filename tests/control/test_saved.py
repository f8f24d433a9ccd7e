"""Saved states: every controller's goes out and comes back the same, and nothing else comes in."""

import io
import json
from dataclasses import replace

import jax
import numpy as np
import pytest

from apparate_jax.control import saved
from apparate_jax.errors import StateError
from tests.control import test_controller as ours
from tests.control import test_paper as papers


def run(controller, batches=12, seed=0):
    """A state after some feedback, wrong answers and shadow batches among it."""
    rng, state = np.random.default_rng(seed), controller.init()
    for _ in range(batches):
        errors = rng.uniform(size=(4, 2)).astype(np.float32)
        plan = controller.plan(state)
        seen = ours.released(plan, errors[:, : len(plan.sites)], rng.random((4, 2)) < 0.9)
        _, state, _ = controller.update(state, seen)
    return state


def same(one, other):
    """Equal structures, types and values."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("policy", ["fixed", "exact"])
def test_our_state_comes_back_and_decides_the_same(policy):
    controller = ours.make(replace(ours.CONFIG, policy=policy, min_shadow=8))
    state = run(controller)
    back = saved.decode(saved.encode(state, "key"), "key")
    same(state, back)
    assert controller.plan(back) == controller.plan(state)
    same(run(controller._replace(init=lambda: back)), run(controller._replace(init=lambda: state)))


def test_the_papers_state_comes_back():
    state = papers.state((1, 4), (0.1, 0.2), np.full((8, 2), 0.5))
    same(state, saved.decode(saved.encode(state, "key"), "key"))


def test_an_engine_that_begins_anew_has_the_credit_but_no_early_answers():
    controller = ours.make()
    state = run(controller)
    assert state.guard.exits > 0
    resumed = controller.resume(state)
    assert controller.plan(resumed).exit_cap == (
        controller.plan(state).exit_cap - state.guard.exits
    )


def test_a_state_of_another_key_is_refused():
    data = saved.encode((1, 2), "one")
    with pytest.raises(StateError, match="other settings"):
        saved.decode(data, "other")


@pytest.mark.parametrize("at", [0, 40, 200, -60, -1])
def test_a_damaged_state_is_refused_wherever_it_is_damaged(at):
    data = bytearray(saved.encode(run(ours.make(), 4), "key"))
    sound = saved.decode(bytes(data), "key")
    data[at] ^= 0xFF
    try:
        found = saved.decode(bytes(data), "key")
    except StateError:
        return
    same(sound, found)  # a byte that says nothing, as a time in the archive


def test_a_state_that_was_cut_off_is_refused():
    data = saved.encode((1, 2), "key")
    for end in range(0, len(data), 7):
        with pytest.raises(StateError):
            saved.decode(data[:end], "key")


def test_a_state_of_another_version_is_refused():
    structure = {"key": "key", "state": {"is": "guard.Guard", "fields": {"eps": 0.01}}}
    named = {"structure": np.frombuffer(json.dumps(structure).encode(), np.uint8)}
    named["sha256"] = np.frombuffer(saved._digest(named), np.uint8)
    file = io.BytesIO()
    np.savez(file, **named)
    with pytest.raises(StateError, match=r"another version of 'guard\.Guard'"):
        saved.decode(file.getvalue(), "key")


def test_what_is_no_state_is_not_written():
    with pytest.raises(TypeError, match="holds a list"):
        saved.encode(([1],), "key")
