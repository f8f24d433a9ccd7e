"""How slow a device was, from the batches of a live run on it."""

import sys

import numpy as np
import pytest

from apparate_jax.core import BatchRecord, Profile, ShadowAnswers, ShapeProfile
from tests.docs.figures import ROOT

SHAPE = ShapeProfile(1, 10.0, 10.6, (3.0, 8.0), (2.0, 5.0, 7.0), (0.1, 0.2, 0.1), 3.0)
PROFILE = Profile("test", "0", (0, 2), (SHAPE,))
BEGUN_S = 100.0


@pytest.fixture(scope="module")
def pace_of():
    """The benchmark's function; the script finds its neighbours as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import replay_vs_live

        yield replay_vs_live.pace_of
    for name in ("replay_vs_live", "_demo", "_common"):
        sys.modules.pop(name, None)


def batch(dispatched_ms, *answers_ms, deferred_ms=0.0, shadow=False):
    """A record of one input, handed over and answered at milliseconds after the run began."""
    dispatched_s, *answers_s = (BEGUN_S + ms / 1e3 for ms in (dispatched_ms, *answers_ms))
    ramps = len(answers_s) - 1
    none = np.zeros((1, ramps), np.float32)
    return BatchRecord(
        sites=PROFILE.sites[:ramps],
        shape=1,
        arrived_s=np.array([dispatched_s]),
        dispatched_s=dispatched_s,
        released_s=np.array(answers_s[-1:]),
        finished_s=answers_s[-1],
        exits=np.array([ramps], np.int32),
        errors=none,
        predictions=none.astype(np.int32),
        final_predictions=np.zeros(1, np.int32),
        shadow=ShadowAnswers((), none, none.astype(np.int32)) if shadow else None,
        ready_s=tuple(answers_s[:-1]),
        deferred_s=deferred_ms / 1e3,
    )


def found(pace):
    """Milliseconds and factors, without the 1 that holds at the beginning."""
    both = zip(pace.since_s, pace.factors, strict=True)
    return [(round(s * 1e3, 3), round(factor, 3)) for s, factor in both][1:]


def test_one_batch_after_another(pace_of):
    records = [batch(0, 20), batch(5, 35), batch(50, 60)]
    assert found(pace_of(PROFILE, records, BEGUN_S)) == [(0, 2), (20, 1.5), (50, 1)]


def test_answers_sooner_than_the_heads_before_them_say_nothing(pace_of):
    records = [batch(0, 13, shadow=True), batch(1, 13.3)]
    assert found(pace_of(PROFILE, records, BEGUN_S)) == []


def test_with_ramps_by_the_first_ones_answers(pace_of):
    records = [batch(0, 6, 17, 22), batch(1, 28, 40, 50)]
    assert found(pace_of(PROFILE, records, BEGUN_S)) == [(0, 2), (22, 2)]


def test_a_shadow_batch_takes_the_other_heads_time_too(pace_of):
    records = [batch(0, 13, shadow=True), batch(1, 33.4)]
    assert found(pace_of(PROFILE, records, BEGUN_S)) == [(13.4, 2)]


def test_who_may_have_waited_for_a_rest_says_nothing(pace_of):
    deferred = batch(0, 3, 8, 60, deferred_ms=40)
    waited, behind_it, later = batch(50, 62, 66, 72), batch(51, 75, 80, 84), batch(90, 96, 106, 112)
    records = [deferred, waited, behind_it, later]
    assert found(pace_of(PROFILE, records, BEGUN_S)) == [(0, 1), (90, 2)]
