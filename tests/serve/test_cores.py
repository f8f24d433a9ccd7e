"""Threads that compute, each on a core; in processes of their own, for they stay pinned."""

import json
import os
import subprocess
import sys

import pytest

from apparate_jax.errors import ConfigError
from apparate_jax.serve import cores

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins threads")

PINNED = """
import json, os
from apparate_jax.serve.cores import pin_pool, pool_threads
count = pin_pool()
places = [sorted(os.sched_getaffinity(thread)) for thread in pool_threads()]
print(json.dumps([count, places, sorted(os.sched_getaffinity(0))]))
"""


def ran(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    return json.loads(done.stdout)


@LINUX
def test_each_thread_has_a_core_of_its_own_and_the_process_keeps_all():
    count, places, own = ran(PINNED)
    assert count == len(own)
    assert sorted(places) == [[core] for core in own]


@LINUX
def test_only_cores_that_the_process_may_use():
    last = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})"
    count, places, own = ran(last + PINNED)
    assert count == 1 and places == [own] and len(own) == 1


@LINUX
def test_a_process_without_a_pool_has_no_such_threads():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        assert cores.pool_threads(other.pid) == []
        other.communicate(b"\n")


def test_another_system_says_what_to_do(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ConfigError, match="darwin does not let a thread have a core: leave it out"):
        cores.pin_pool()


@LINUX
def test_threads_of_another_name_are_missed_aloud(monkeypatch, caplog):
    class Cpu:
        platform = "cpu"

    monkeypatch.setattr(cores.jax, "devices", lambda: [Cpu()])
    monkeypatch.setattr(cores, "POOL", "another name")
    assert cores.pin_pool() == 0
    assert "no thread of this process is called 'another name'" in caplog.text


def test_an_accelerator_has_nothing_to_pin(monkeypatch, caplog):
    class Gpu:
        platform = "gpu"

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cores.jax, "devices", lambda: [Gpu()])
    assert cores.pin_pool() == 0
    assert "does nothing: the model does not run on the CPU" in caplog.text
