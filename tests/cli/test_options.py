"""What is typed becomes the library's configuration, whose defaults are the only ones."""

import pytest

from apparate_cli import options
from apparate_jax.errors import ConfigError
from apparate_jax.serve.engine_config import BatchingConfig, EngineConfig
from apparate_jax.serve.service import ServiceConfig


def test_sizes_in_any_order():
    assert options.parse_sizes("8, 1,4") == (1, 4, 8)
    assert options.parse_sizes(options.BATCH_SIZES) == ServiceConfig().batch_sizes


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "1;2", "0", "-1,2", "4,4", "1e3"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="batch sizes are"):
        options.parse_sizes(text)


def test_the_defaults_are_the_librarys():
    control = options.CONTROL
    made = options.service_config(
        options.PLACEMENT.ramp_budget,
        options.BATCH_SIZES,
        options.control_config(control.accuracy, control.promise, control.policy, control.method),
    )
    assert made == ServiceConfig()
    engine, batching = options.ENGINE, options.ENGINE.batching
    assert (
        engine
        == EngineConfig()
        == options.engine_config(
            batching.policy, batching.timeout_ms, batching.slo_ms, engine.queue_size
        )
    )


def test_batching_that_is_typed_arrives():
    control = options.control_config(0.95, "window", "paper", "greedy")
    engine = options.engine_config("slo", 3.0, 80.0, 64, priority_levels=3, max_in_flight=1)
    batching = BatchingConfig("slo", timeout_ms=3.0, slo_ms=80.0, priority_levels=3)
    assert engine == EngineConfig(1, 64, batching)
    assert options.service_config(0.5, "2", control, engine).engine == engine
    with pytest.raises(ConfigError, match="batching is 'fifo'"):
        options.engine_config("fifo", 3.0, None, 64)


def test_what_is_typed_arrives():
    control = options.control_config(0.95, "window", "paper", "greedy")
    made = options.service_config(0.5, "2", control)
    assert (control.accuracy, control.promise) == (0.95, "window")
    assert (control.policy, control.method) == ("paper", "greedy")
    assert made.control == control
    assert made.placement.ramp_budget == 0.5 and made.batch_sizes == (2,)


def test_a_promise_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"promise is 'all', expected one of \['long-run'"):
        options.control_config(0.99, "all", "exact", "exact")
