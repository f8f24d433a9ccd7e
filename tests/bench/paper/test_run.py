"""An evaluation goes on where it was ended, and does again only what changed."""

from dataclasses import replace
from pathlib import Path

import pytest

from apparate_jax.bench.paper.parts import PARTS, Given, settings_of, why_not
from apparate_jax.bench.paper.run import run, steps_of
from apparate_jax.bench.paper.suite import Suite, Workload
from apparate_jax.errors import ConfigError, DataError, QueueFullError
from tests.bench import tiny
from tests.bench.paper import made


def evaluate(given, out, names=("a", "b"), **more):
    """What ran, and what an evaluation has then."""
    calls = []
    done = run(given, out, parts=[made.counting(name, calls, every=True) for name in names], **more)
    return calls, done


def again(given, **changed):
    """The same suite in a new process, with other settings perhaps."""
    return Given(given.suite, replace(given.config, **changed))


def test_what_is_there_is_kept(tmp_path):
    given = made.given(tmp_path)
    calls, done = evaluate(given, tmp_path)
    assert calls == [("words", "a"), ("words", "b")] and done.made == ("words--a", "words--b")
    calls, done = evaluate(again(given), tmp_path, names=("a", "b", "c"))
    assert calls == [("words", "c")] and done.kept == ("words--a", "words--b")
    assert done.result("words", "b") == {"calls": 2} and done.result("words", "x") is None


def test_force_does_all_of_it_again(tmp_path):
    given = made.given(tmp_path)
    evaluate(given, tmp_path)
    calls, _ = evaluate(given, tmp_path, force=True)
    assert len(calls) == 2


@pytest.mark.parametrize("changed", [{"requests": 301}, {"seeds": 3}, {"accuracy": 0.98}])
def test_other_settings_do_it_again(tmp_path, changed):
    given = made.given(tmp_path)
    evaluate(given, tmp_path)
    assert len(evaluate(again(given, **changed), tmp_path)[0]) == 2
    assert not evaluate(again(given, **changed), tmp_path)[0]


def test_settings_of_live_runs_are_of_live_parts_only(tmp_path):
    given = made.given(tmp_path)
    evaluate(given, tmp_path)
    assert not evaluate(again(given, live_rounds=9), tmp_path)[0]
    (workload,) = given.suite.workloads
    live = next(one for one in PARTS if one.name == "live")
    assert settings_of(live, workload, given) != settings_of(
        live, workload, again(given, live_rounds=9)
    )


def test_another_content_of_a_file_does_it_again(tmp_path):
    given = made.given(tmp_path, words="text", frames="images")
    assert len(evaluate(given, tmp_path)[0]) == 4
    tiny.recording(61).save(tmp_path / "frames.npz")
    calls, _ = evaluate(again(given), tmp_path)
    assert calls == [("frames", "a"), ("frames", "b")]


def test_it_goes_on_after_it_was_ended(tmp_path):
    given, calls = made.given(tmp_path), []

    def ended(given, workload, progress):
        raise KeyboardInterrupt

    first = made.counting("a", calls, every=True)
    parts = [first, first._replace(name="b", run=ended)]
    with pytest.raises(KeyboardInterrupt):
        run(given, tmp_path, parts=parts)
    assert evaluate(again(given), tmp_path)[0] == [("words", "b")]


def test_a_part_that_fails_does_not_end_the_others(tmp_path):
    given, calls = made.given(tmp_path), []

    def failing(given, workload, progress):
        raise QueueFullError("it falls behind")

    first = made.counting("a", calls, every=True)
    parts = [first._replace(name="x", run=failing), first]
    told = []
    done = run(given, tmp_path, parts=parts, on_done=lambda _, failed, __: told.append(failed))
    assert told == ["it failed: it falls behind", None]
    assert calls == [("words", "a")] and done.failed == ("words--x",)
    assert done.skipped["words", "x"] == "it failed: it falls behind"
    with pytest.raises(QueueFullError):
        run(given, tmp_path, parts=[parts[0]._replace(needed=True)])
    assert run(again(given), tmp_path, parts=[first]).kept == ("words--a",)


def test_inputs_are_read_before_anything_is_run(tmp_path):
    given = made.given(tmp_path, words="text", frames="images")
    (tmp_path / "frames.npz").write_text("")
    with pytest.raises(DataError, match="is no recording"):
        evaluate(given, tmp_path)
    (tmp_path / "times.csv").write_text("t\n0\n1\n2\n")
    first, _ = given.suite.workloads
    few = Given(Suite((replace(first, arrivals=tmp_path / "times.csv"),)), given.config)
    with pytest.raises(
        DataError, match=r"words: .*times\.csv has 3 arrivals, expected at least 350"
    ):
        evaluate(few, tmp_path)
    assert not (tmp_path / "parts").exists()


def test_progress_and_what_is_left(tmp_path):
    given, told, left = made.given(tmp_path), [], []
    evaluate(
        given,
        tmp_path,
        begin=lambda title: lambda done, total, what: told.append((title, done, total)),
        on_done=lambda step, failed, left_s: left.append((step.name, left_s)),
    )
    assert told == [("words: a", 1, 1), ("words: b", 1, 1)]
    assert [name for name, _ in left] == ["words--a", "words--b"]
    assert left[0][1] > 0 and left[1][1] == 0


def test_sensitivity_is_of_the_first_of_each_kind_unless_asked_for(tmp_path):
    kinds = {"words": "text", "more": "text", "frames": "images"}
    given = made.given(tmp_path, **kinds)
    ran = {(s.workload.name, s.part.name) for s in steps_of(given) if s.skipped is None}
    assert ("words", "slo") in ran and ("frames", "slo") in ran and ("more", "slo") not in ran
    assert {("more", "systems"), ("more", "overheads")} <= ran
    every = steps_of(again(given, sensitivity="all"))
    assert {s.workload.name for s in every if s.part.name == "slo" and not s.skipped} == set(kinds)


def test_a_study_is_of_the_workloads_own_stream_and_pace():
    camera = Workload(
        "street", "images", Path("street.npz"), stream="recorded", pace="fixed", rate=20
    )
    study, live = made.CONFIG.study(camera), made.CONFIG.live(camera)
    assert (study.stream, study.arrivals, live.arrivals) == ("recorded", "fixed", "fixed")
    assert study.rate_rps == live.rate_rps == 20 and live.load == "at 20 requests/s"


def test_reasons_of_what_is_not_run(tmp_path):
    given = made.given(tmp_path)
    (workload,) = given.suite.workloads
    part = {one.name: one for one in PARTS}
    assert "DeeBERT's ramps" in why_not(part["ramps"], workload, given)
    assert "no checkpoint and data" in why_not(part["live"], workload, given)
    whole = Workload("w", "text", workload.trace, checkpoint=tmp_path, data=tmp_path)
    assert why_not(part["live"], whole, given) == "it was not asked for"
    given.live = lambda workload, config, progress: {}
    assert why_not(part["live"], whole, given) is None
    quick = Given(given.suite, replace(given.config, quick=True), given.live)
    assert why_not(part["live"], whole, quick) == "a quick run has nothing live"


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="cannot make"):
        evaluate(made.given(tmp_path), tmp_path / "out")
