"""Records of batches as observations, and the policy that never changes."""

import numpy as np

from apparate_jax.control.interface import Info, Observation, fixed
from apparate_jax.core import BatchRecord, ExitPlan, ShadowAnswers


def record(shadow: ShadowAnswers | None = None) -> BatchRecord:
    return BatchRecord(
        sites=(2, 5),
        shape=4,
        arrived_s=np.zeros(2),
        dispatched_s=0.0,
        released_s=np.ones(2),
        finished_s=1.0,
        exits=np.array([0, 2], np.int32),
        errors=np.array([[0.1, 0.2], [0.3, 0.4]], np.float32),
        predictions=np.array([[1, 0], [1, 1]], np.int32),
        final_predictions=np.array([1, 0], np.int32),
        lost=1,
        shadow=shadow,
    )


def test_reads_a_batch_record():
    seen = Observation.of(record())
    assert (seen.sites, seen.shape, seen.lost, seen.shadow) == ((2, 5), 4, 1, None)
    assert seen.agrees.tolist() == [[True, False], [False, False]]
    assert seen.exits.tolist() == [0, 2]


def test_reads_what_a_shadow_batch_said():
    errors = np.zeros((2, 3), np.float32)
    given = ShadowAnswers((0, 2, 5), errors, np.array([[1, 1, 0], [0, 1, 1]], np.int32))
    shadow = Observation.of(record(given)).shadow
    assert shadow is not None and shadow.sites == (0, 2, 5)
    assert shadow.agrees.tolist() == [[True, True, False], [True, False, False]]


def test_a_fixed_plan_stays():
    plan = ExitPlan((1,), (0.5,))
    policy = fixed(plan)
    state = policy.init()
    assert policy.plan(state) == plan
    assert policy.update(state, Observation.of(record())) == (plan, state, Info())
