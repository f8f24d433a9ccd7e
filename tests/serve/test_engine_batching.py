"""The engine under each batching policy: priorities, deadlines, timeouts, objectives."""

import threading
import time
from dataclasses import replace

import pytest

from apparate_jax.control.latency import LatencyModel
from apparate_jax.core import FINAL, BatchRecord, ExitPlan, Profile, ShapeProfile
from apparate_jax.errors import (
    ConfigError,
    DeadlinePassedError,
    DeadlineUnreachableError,
    RequestError,
)
from apparate_jax.serve.engine import BatchingConfig, Engine, EngineConfig
from apparate_jax.serve.programs import Programs
from tests.serve import models

SHAPES = tuple(ShapeProfile(b, 10.0 * b, 10.0 * b, (), (4.0, 8.0), (0.0, 0.0)) for b in (1, 2, 4))
LATENCY = LatencyModel(Profile("paper", "0", (), SHAPES))
SLO = BatchingConfig("slo", slo_ms=1000.0)


@pytest.fixture(scope="module")
def warmed() -> Programs:
    made = models.programs(models.mlp())
    made.warm_atomic()
    made.warm_merged(())
    return made


class Held:
    """An engine over a model whose last stage waits until the gate is opened."""

    def __init__(self, config: EngineConfig, sizes=(1, 2, 4), latency=LATENCY) -> None:
        self.gate = threading.Event()
        self.gate.set()
        made = models.programs(models.gated(self.gate), sizes)
        made.warm_merged(())
        self.records: list[BatchRecord] = []
        self.engine = Engine(made, config, latency=latency, observer=self.records.append)


def test_higher_levels_are_served_first(warmed):
    config = EngineConfig(batching=BatchingConfig(priority_levels=2, default_priority=2))
    order: list[int] = []
    engine = Engine(warmed, config)
    for name, priority in enumerate((None, 2, 1, 0, None, 1)):
        future = engine.submit(models.example(), priority=priority)
        future.add_done_callback(lambda _, name=name: order.append(name))
    with engine:
        assert engine.wait_idle(30)
    assert order == [2, 5, 0, 1, 3, 4]


def test_a_level_that_does_not_exist_is_refused(warmed):
    with pytest.raises(RequestError, match="priority is 2, expected 1 to 1"):
        Engine(warmed).submit(models.example(), priority=2)
    with pytest.raises(RequestError, match="priority is -1"):
        Engine(warmed).submit(models.example(), priority=-1)


def test_a_request_that_waited_past_its_deadline_gets_an_error_and_no_place():
    held = Held(EngineConfig(max_in_flight=1), (1,))
    held.gate.clear()
    with held.engine as engine:
        first = engine.submit(models.example())
        late = engine.submit(models.example(), deadline_s=time.monotonic() - 1e-3)
        last = engine.submit(models.example(), deadline_s=time.monotonic() + 600)
        held.gate.set()
        with pytest.raises(DeadlinePassedError, match="its deadline passed"):
            late.result(30)
        assert first.result(30).exit == last.result(30).exit == FINAL
        assert engine.wait_idle(30)
    assert [len(record.exits) for record in held.records] == [1, 1]


def test_a_batch_leaves_full_or_after_its_timeout(warmed):
    records: list[BatchRecord] = []
    config = EngineConfig(batching=BatchingConfig("timeout", timeout_ms=20.0))
    with Engine(warmed, config, observer=records.append) as engine:
        full = [engine.submit(models.example(i)) for i in range(4)]
        assert [future.result(30).exit for future in full] == [FINAL] * 4
        engine.submit(models.example()).result(30)
        assert engine.wait_idle(30)
    assert [len(record.exits) for record in records] == [4, 1]
    assert records[1].dispatched_s - records[1].arrived_s[0] >= 0.020


def test_a_timeout_ends_with_the_engine(warmed):
    config = EngineConfig(batching=BatchingConfig("timeout", timeout_ms=600_000.0))
    with Engine(warmed, config) as engine:
        future = engine.submit(models.example())
    assert future.result(0).exit == FINAL


def test_slo_refuses_what_it_cannot_answer_in_time():
    """By its profile one takes 100 s, and one is ahead: within 150 s nobody fits behind it."""
    slow = LatencyModel(Profile("paper", "0", (), (replace(SHAPES[0], vanilla_ms=1e5),)))
    held = Held(EngineConfig(batching=replace(SLO, slo_ms=600_000.0)), (1,), slow)
    held.gate.clear()
    with held.engine as engine:
        first = engine.submit(models.example(), deadline_s=time.monotonic() + 120)
        with pytest.raises(DeadlineUnreachableError, match="can not be had by the measured profil"):
            engine.submit(models.example(), deadline_s=time.monotonic() + 150)
        patient = engine.submit(models.example())
        held.gate.set()
        assert first.result(30).exit == patient.result(30).exit == FINAL
        assert engine.wait_idle(30)
        prompt = engine.submit(models.example(), deadline_s=time.monotonic() + 120)
        assert prompt.result(30).exit == FINAL, "what ended is no longer counted"


def test_slo_goes_by_the_profile_of_the_plan_and_needs_one(warmed):
    config = EngineConfig(batching=SLO)
    with pytest.raises(ConfigError, match=r"'slo' goes by the measured profile: give latency="):
        Engine(warmed, config)
    shape = replace(SHAPES[0], total_ms=5000.0, release_ms=(100.0,))
    slow = LatencyModel(Profile("paper", "0", (0,), (shape, *SHAPES[1:])))
    with Engine(warmed, config, latency=slow) as engine:
        assert engine.submit(models.example()).result(30).exit == FINAL
        engine.set_plan(ExitPlan.closed((0,)))
        with pytest.raises(DeadlineUnreachableError):
            engine.submit(models.example())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"policy": "fifo"}, r"batching is 'fifo', expected one of \['immediate', 'timeout', 'slo"),
        ({"policy": "slo"}, "but within what"),
        ({"slo_ms": 0.0}, "slo_ms is 0"),
        ({"timeout_ms": -1.0}, "batch timeout is -1"),
        ({"slo_quantile": 0.0}, "slo_quantile is 0"),
        ({"priority_levels": 0}, "default_priority is 1 of 0"),
        ({"default_priority": 2}, "default_priority is 2 of 1"),
    ],
)
def test_settings_out_of_range(given, message):
    with pytest.raises(ConfigError, match=message):
        BatchingConfig(**given)
