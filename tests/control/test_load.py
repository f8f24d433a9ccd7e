from apparate_jax.control.load import OVERDUE, always, shadow_due, unless_saturated


def test_ramps_run_until_a_whole_batch_waits():
    assert unless_saturated((1, 3), 0, 8) == (1, 3)
    assert unless_saturated((1, 3), 7, 8) == (1, 3)
    assert unless_saturated((1, 3), 8, 8) == ()
    assert unless_saturated((), 0, 8) == ()


def test_always_is_always():
    assert always((1, 3), 10**6, 8) == (1, 3)


def test_shadow_batches_wait_for_a_quiet_moment_and_come_late_under_load():
    assert not shadow_due(100, 0, 0, 8), "never"
    assert not shadow_due(15, 16, 0, 8) and shadow_due(16, 16, 0, 8)
    assert not any(shadow_due(since, 16, 1, 8) for since in range(OVERDUE * 16))
    assert shadow_due(OVERDUE * 16, 16, 1, 8)
    assert not shadow_due(1000, 16, 8, 8), "a whole further batch waits"
