from apparate_jax.control.load import always, unless_saturated


def test_ramps_run_until_a_whole_batch_waits():
    assert unless_saturated((1, 3), 0, 8) == (1, 3)
    assert unless_saturated((1, 3), 7, 8) == (1, 3)
    assert unless_saturated((1, 3), 8, 8) == ()
    assert unless_saturated((), 0, 8) == ()


def test_always_is_always():
    assert always((1, 3), 10**6, 8) == (1, 3)
