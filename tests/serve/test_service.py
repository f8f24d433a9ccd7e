"""From a checkpoint to engines: warmed, within the ramp budget, tuned by their own feedback."""

import os
import subprocess
import sys

import jax.numpy as jnp
import pytest

from apparate_jax.checkpoint import Checkpoint
from apparate_jax.control import ControlConfig, Controller
from apparate_jax.core import FINAL, ExitPlan, Profile, ShapeProfile
from apparate_jax.errors import CheckpointError
from apparate_jax.graph import trace
from apparate_jax.ramps.placement import PlacementConfig
from apparate_jax.serve import service as services
from apparate_jax.serve.engine import Engine
from apparate_jax.serve.feedback import Feedback
from apparate_jax.serve.service import ServiceConfig, prepare
from tests.serve import models


def _checkpoint() -> Checkpoint:
    model = models.mlp()
    program = trace(model.apply, model.params, *model.example_inputs(2))
    ramps = models.ramps(program)
    # The second ramp is the model's own last layer: it always agrees, so it may open wide.
    same = {"kernel": jnp.asarray(model.params[2]), "bias": jnp.zeros(3)}
    second = type(ramps[1])(1, ramps[1].name, "identity", same, 1.0, 1.0)
    return Checkpoint(model, program.sites, (ramps[0], second), active=(0, 1))


def _config(ramp_budget: float) -> ServiceConfig:
    control = ControlConfig(window=256, tune_every=32)
    placement = PlacementConfig(ramp_budget=ramp_budget)
    return ServiceConfig(batch_sizes=(1, 4), control=control, placement=placement)


def test_thresholds_open_on_feedback_and_answers_stay_right():
    service = prepare(_checkpoint(), _config(100.0))
    assert service.profile.sites == (0, 1)
    decided: list[ExitPlan] = []
    engine, feedback = service.apparate(on_decision=lambda plan, info: decided.append(plan))
    assert engine.plan == ExitPlan.closed((0, 1))
    with engine:
        feedback.attach(engine)
        first = [engine.submit(models.example(i)).result(30) for i in range(40)]
        assert {a.exit for a in first} == {FINAL}
        for i in range(160):
            engine.submit(models.example(i)).result(30)
        assert engine.wait_idle(30)
        feedback.close()
        late = [engine.submit(models.example(i)).result(30) for i in range(20)]
    assert decided
    assert engine.plan.thresholds[1] > 0
    assert any(a.exit != FINAL for a in late)
    for i, answer in enumerate(late):
        expected = models.answers(service.programs, models.example(i)["x"])[1]
        assert answer.label == int(expected.argmax())
    service.programs.close()


def test_ramps_over_the_budget_are_left_out():
    service = prepare(_checkpoint(), _config(0.0))
    assert len(service.profile.sites) < 2
    service.programs.close()


@pytest.mark.parametrize(
    ("overheads", "kept"), [((0.01,), True), ((0.5, 0.0, 0.01), True), ((0.5, 0.0, 0.4), False)]
)
def test_ramps_that_look_too_slow_are_measured_again(monkeypatch, caplog, overheads, kept):
    given, calls = iter(overheads), []

    def measure(programs, sites, *, progress=None):
        calls.append(sites)
        total = 1 + (next(given) if sites else 0.0)
        shape = ShapeProfile(1, 1.0, total, (0.5,) * len(sites), (0.3, 0.6), (0.0, 0.0))
        return Profile("none", "0", sites, (shape,))

    monkeypatch.setattr(services, "measure", measure)
    monkeypatch.setattr(services, "measure_again", lambda made, last: measure(made, last.sites))
    monkeypatch.setattr(services, "initial_sites", lambda *_: ())
    service = prepare(_checkpoint(), _config(0.02))
    service.programs.close()
    assert calls == [(0, 1)] * len(overheads) + [()] * (not kept)
    assert service.profile.sites == calls[-1]
    said = "2 ramps would add 40.0 % to the worst-case latency, more than the ramp budget of 2.0 %"
    assert [r.getMessage() for r in caplog.records] == [f"{said}: starting with 0"] * (not kept)
    if kept:
        middle = sorted(overheads)[len(overheads) // 2]
        assert services.overhead_frac(service.profile) == pytest.approx(middle)


def test_vanilla_is_the_same_engine_with_one_stage():
    service = prepare(_checkpoint(), _config(100.0))
    with service.vanilla() as engine:
        assert engine.plan == ExitPlan()
        assert engine.submit(models.example()).result(30).exit == FINAL
    service.programs.close()


def test_a_checkpoint_of_other_sites_is_refused():
    checkpoint = _checkpoint()
    other = Checkpoint(checkpoint.model, checkpoint.sites[:1])
    with pytest.raises(CheckpointError, match="inject and train it again"):
        prepare(other, _config(100.0))


def test_a_controller_that_fails_closes_all_exits(caplog):
    made = models.programs(models.mlp(), (1,))
    made.warm_atomic()

    def fail(state, observation):
        raise ValueError("no idea")

    feedback = Feedback(Controller(init=lambda: None, update=fail, plan=lambda _: plan))
    plan = ExitPlan((0, 1), (1.0, 1.0))
    with Engine(made, plan=plan, observer=feedback.observe) as engine:
        feedback.attach(engine)
        assert engine.submit(models.example()).result(30).exit != FINAL
        assert engine.wait_idle(30)
        feedback.close()
        assert engine.plan == ExitPlan.closed((0, 1))
        assert engine.submit(models.example()).result(30).exit == FINAL
    assert "no idea" in caplog.text


TWO_DEVICES = """
import jax, numpy as np
from dataclasses import replace
from tests.bench import tiny
from apparate_jax.serve import prepare
from apparate_jax.errors import ConfigError

config = tiny.config(batch_sizes=(1, 2))
service = prepare(tiny.checkpoint(), replace(config, device=1))
engine, feedback = service.apparate()
with engine:
    feedback.attach(engine)
    rows = tiny.data().inputs[0]
    labels = [engine.submit({"x": rows[i]}).result(60).label for i in range(8)]
    feedback.close()
assert labels == list(range(8)), labels
devices = {d.id for r in service.programs.ramp_params.values() for a in r for d in a.devices()}
assert devices == {1}, devices
try:
    prepare(tiny.checkpoint(), replace(config, device=2))
except ConfigError as error:
    print("refused:", error)
"""


def test_a_model_runs_on_the_device_that_it_is_given():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert "refused: the device is 2, expected 0..1" in done.stdout
