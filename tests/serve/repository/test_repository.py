"""The repository: models found, loaded, replaced, unloaded, and no request without its answer."""

import gc
import logging
import shutil
import threading
import time
import weakref

import numpy as np
import pytest

from apparate_jax.errors import CheckpointError, ConfigError
from apparate_jax.serve.inference import Kind, Refusal
from apparate_jax.serve.repository import Abandoned, ModelConfig, Repository
from apparate_jax.serve.repository.versions import chosen, versions_at
from tests.serve.repository import made


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Checkpoints whose heads are 1, 2 and 3 times the model's own; copied by who changes them."""
    root = tmp_path_factory.mktemp("checkpoints")
    return {times: made.save(root / str(times), times) for times in (1, 2, 3)}


def put(checkpoints, times, place):
    """Let a checkpoint take a place, as an engineer would: beside it first, then renamed."""
    beside = place.with_name(f".{place.name}.new")
    shutil.copytree(checkpoints[times], beside)
    shutil.rmtree(place, ignore_errors=True)
    beside.rename(place)


def states(repository):
    return {(e["name"], e["version"]): e["state"] for e in repository.index()}


def test_a_model_is_found_by_name_and_version(checkpoints):
    with Repository([made.config(checkpoints[2])]) as repository:
        assert not repository.statistics() and states(repository) == {("tiny", ""): "UNAVAILABLE"}
        with pytest.raises(Refusal) as refused, repository.lease("tiny"):
            pass
        assert refused.value.kind is Kind.UNAVAILABLE
        repository.load("tiny")
        assert repository.ready and states(repository) == {("tiny", "1"): "READY"}
        for version in ("", "1"):
            with repository.lease("tiny", version) as served:
                assert made.times_of(served) == 2.0
        for name, version in (("other", ""), ("tiny", "2")):
            with pytest.raises(Refusal) as refused, repository.lease(name, version):
                pass
            assert refused.value.kind is Kind.UNKNOWN
        assert list(repository.statistics()) == [("tiny", "1")]


def test_versions_are_numbered_directories_and_the_latest_is_served(checkpoints, tmp_path):
    for version, times in (("2", 1), ("10", 2), ("9", 3)):
        shutil.copytree(checkpoints[times], tmp_path / "tiny" / version)
    (tmp_path / "tiny" / "11").mkdir()  # not finished
    (tmp_path / "tiny" / "notes").mkdir()
    assert list(versions_at(tmp_path / "tiny")) == ["2", "9", "10"]
    assert list(chosen(tmp_path / "tiny", (), 2)) == ["9", "10"]
    assert list(chosen(tmp_path / "tiny", ("10", "2"), 1)) == ["2", "10"]
    with Repository([made.config(tmp_path / "tiny", latest=2)]) as repository:
        repository.load("tiny")
        found = {}
        for version in ("", "9", "10"):
            with repository.lease("tiny", version) as served:
                found[version] = made.times_of(served)
        assert found == {"": 2.0, "9": 3.0, "10": 2.0}
        shutil.copytree(checkpoints[1], tmp_path / "tiny" / "12")
        kept = repository.statistics()["tiny", "10"]
        repository.load("tiny")
        assert states(repository) == {("tiny", "10"): "READY", ("tiny", "12"): "READY"}
        assert repository.statistics()["tiny", "10"] is kept, "what did not change goes on"


def test_errors_of_places_say_what_was_expected(tmp_path, checkpoints):
    with pytest.raises(CheckpointError, match="named by a version's number"):
        versions_at(tmp_path)
    with pytest.raises(ConfigError, match="has no version '7', expected some of 1"):
        chosen(checkpoints[1], ("7",), 1)
    with pytest.raises(ConfigError, match="a name of its own"):
        Repository([made.config(tmp_path), made.config(tmp_path)])
    with pytest.raises(ConfigError, match="a name without '/'"):
        ModelConfig("a/b", tmp_path)


def test_a_model_that_cannot_be_loaded_says_why_and_leaves_what_was_there(checkpoints, tmp_path):
    place = tmp_path / "tiny"
    put(checkpoints, 1, place)
    with Repository([made.config(place)]) as repository:
        repository.load("tiny")
        made_ramps = place / "manifest.json"
        made_ramps.write_text(made_ramps.read_text()[:-40])
        with pytest.raises(CheckpointError):
            repository.load("tiny")
        assert repository.ready
        with repository.lease("tiny") as served:
            assert made.times_of(served) == 1.0
    with Repository([made.config(tmp_path / "none")]) as repository:
        with pytest.raises(CheckpointError):
            repository.load("tiny")
        (entry,) = repository.index()
        assert entry["state"] == "UNAVAILABLE" and "no checkpoint at" in entry["reason"]


def test_a_checkpoint_without_ramps_is_refused(tmp_path):
    made.save(tmp_path / "bare", ramps=False)
    with Repository([made.config(tmp_path / "bare")]) as repository:
        with pytest.raises(CheckpointError, match="run apparate train-ramps"):
            repository.load("tiny")


def test_a_reload_loses_no_request_and_mixes_no_answer(checkpoints, tmp_path):
    """Clients ask all the time while the checkpoint is replaced twice."""
    place = tmp_path / "tiny"
    put(checkpoints, 1, place)
    found: list[list[float]] = [[], []]
    errors: list[Exception] = []
    stop = threading.Event()

    def ask(mine):
        try:
            while not stop.is_set():
                with repository.lease("tiny") as served:
                    before = made.times_of(served)
                    assert before == made.times_of(served), "one request, one model"
                mine.append(before)
        except Exception as error:
            errors.append(error)

    with Repository([made.config(place)]) as repository:
        repository.load("tiny")
        compiled = repository._models["tiny"].latest().service.programs.executables.compiled
        clients = [threading.Thread(target=ask, args=(mine,)) for mine in found]
        for client in clients:
            client.start()
        for times in (2, 3):
            time.sleep(0.1)
            put(checkpoints, times, place)
            repository.load("tiny")
        after = repository._models["tiny"].latest().service.programs.executables.compiled
        time.sleep(0.1)
        stop.set()
        for client in clients:
            client.join(60)
    assert not errors
    for mine in found:
        assert sorted(mine) == mine, "never an older model again"
        assert set(mine) == {1.0, 2.0, 3.0}
    assert after == compiled, "the same programs with other parameters"


def test_a_version_that_is_said_to_be_loaded_answers_already(checkpoints, tmp_path):
    place, answers = tmp_path / "tiny", []
    put(checkpoints, 1, place)
    with Repository([made.config(place)]) as repository:

        class Asks(logging.Handler):
            def emit(self, record):
                if "is loaded" in record.getMessage():
                    with repository.lease("tiny") as served:
                        answers.append(made.times_of(served))

        log = logging.getLogger("apparate_jax.serve.repository.repository")
        log.addHandler(asks := Asks(logging.INFO))
        level = log.level
        log.setLevel(logging.INFO)
        try:
            repository.load("tiny")
            put(checkpoints, 2, place)
            repository.load("tiny")
        finally:
            log.removeHandler(asks)
            log.setLevel(level)
    assert answers == [1.0, 2.0]


def test_a_model_that_is_unloaded_answers_what_is_under_way(checkpoints):
    with Repository([made.config(checkpoints[1])]) as repository:
        repository.load("tiny")
        with repository.lease("tiny") as served:
            thread = threading.Thread(target=repository.unload, args=("tiny",))
            thread.start()
            while states(repository) != {("tiny", ""): "UNAVAILABLE"}:
                time.sleep(0.005)
            assert made.times_of(served) == 1.0, "leased before"
            assert thread.is_alive()
        thread.join(30)
        assert repository.ready, "nothing is wanted that is not there"
        with pytest.raises(Refusal, match="unloaded"), repository.lease("tiny"):
            pass
        repository.load("tiny")
        with repository.lease("tiny") as served:
            assert made.times_of(served) == 1.0


def test_a_model_that_was_replaced_leaves_no_memory_behind(checkpoints, tmp_path):
    """Also one that was loaded before the collector was told to leave everything alone."""
    place = tmp_path / "tiny"
    put(checkpoints, 1, place)
    with Repository([made.config(place)]) as repository:
        repository.load("tiny")
        engine = weakref.ref(repository._models["tiny"].latest()._engine)
        repository.freeze()
        try:
            put(checkpoints, 2, place)
            repository.load("tiny")
            assert engine() is None
        finally:
            gc.unfreeze()


def test_a_load_that_is_abandoned_ends_at_its_next_step(checkpoints, tmp_path):
    place, steps = tmp_path / "tiny", []
    put(checkpoints, 1, place)
    with Repository([made.config(place)]) as repository:
        repository.load("tiny")
        put(checkpoints, 2, place)

        def on_phase(what):
            repository.abandon()
            return lambda *step: steps.append(step)

        with pytest.raises(Abandoned, match="the server is closing"):
            repository.load("tiny", on_phase)
        assert not steps
        with pytest.raises(Abandoned):
            repository.load("tiny")
        with repository.lease("tiny") as served:
            assert made.times_of(served) == 1.0, "what was served goes on"


def test_a_compiler_is_ended_with_the_load_that_waits_for_it(checkpoints):
    begun, ended = threading.Event(), threading.Event()

    class Compiler:
        def close(self):
            ended.set()

    def bring_up(*_, began, **__):
        began(Compiler())
        begun.set()
        assert ended.wait(20)
        raise CheckpointError("the compiler was killed")

    errors = []

    def load():
        try:
            repository.load("tiny")
        except Exception as error:
            errors.append(error)

    with Repository([made.config(checkpoints[1])], bring_up=bring_up) as repository:
        loading = threading.Thread(target=load)
        loading.start()
        assert begun.wait(20)
    loading.join(20)
    assert isinstance(errors[0], Abandoned)


def test_several_models_are_served_side_by_side(checkpoints):
    models = [made.config(checkpoints[1], "one"), made.config(checkpoints[2], "two")]
    with Repository(models) as repository:
        for name in repository.names:
            repository.load(name)
        found = []
        for name in ("one", "two", "one"):
            with repository.lease(name) as served:
                found.append(made.times_of(served))
        assert found == [1.0, 2.0, 1.0]
        counts = repository.statistics()
        end = time.monotonic() + 30
        while sum(one.queue.count for one in counts.values()) < 3 and time.monotonic() < end:
            time.sleep(0.005)  # a batch is counted once it has run to its end
        assert [counts[name, "1"].queue.count for name in ("one", "two")] == [2, 1]


def test_what_was_learnt_is_there_after_a_restart(checkpoints, tmp_path):
    model = made.config(checkpoints[1])
    with Repository([model], state_dir=tmp_path) as repository:
        repository.load("tiny")
        with repository.lease("tiny") as served:
            for _ in range(5):
                made.times_of(served)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny-1.npz"]
    with Repository([model], state_dir=tmp_path) as repository:
        repository.load("tiny")
        feedback = repository._models["tiny"].latest()._feedback
        assert feedback._state.guard.answers == 5
        assert np.isfinite(feedback.plan.thresholds).all()
