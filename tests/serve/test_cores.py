"""Threads that compute, each on a core; in processes of their own, for they stay pinned."""

import json
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
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
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


def test_an_accelerator_has_nothing_to_pin(monkeypatch, caplog):
    class Gpu:
        platform = "gpu"

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(cores.jax, "devices", lambda: [Gpu()])
    assert cores.pin_pool() == 0
    assert "does nothing: the model does not run on the CPU" in caplog.text
