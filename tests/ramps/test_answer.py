import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.ramps.answer import answer_entropy, answer_error, pack_answer, unpack_answer

LOGITS = hnp.arrays(
    np.float32,
    (6, 5),
    # XLA flushes subnormal numbers to zero
    elements=st.floats(-15, 15, width=32, allow_subnormal=False),
)


def reference_error(logits):
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(-1, keepdims=True))
    return 1.0 - shares.max(-1) / shares.sum(-1)


@settings(max_examples=100, deadline=None)
@given(LOGITS)
def test_packed_answer_holds_error_label_and_logits(logits):
    error, label, scores = unpack_answer(np.asarray(pack_answer(jnp.asarray(logits))))
    np.testing.assert_allclose(error, reference_error(logits), atol=1e-6)
    np.testing.assert_array_equal(label, logits.argmax(-1))
    np.testing.assert_array_equal(scores, logits)
    assert label.dtype == np.int32


def test_confident_answers_keep_distinct_errors():
    logits = jnp.asarray([[gap, 0.0] for gap in (20.0, 25.0, 30.0, 60.0)])
    error = np.asarray(answer_error(logits))
    np.testing.assert_allclose(error, np.exp([-20.0, -25.0, -30.0, -60.0]), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("column", [0, 2])
def test_broken_logits_pass_no_threshold(bad, column):
    logits = np.zeros((2, 3), np.float32)
    logits[1, column] = bad
    error = np.asarray(pack_answer(jnp.asarray(logits)))[:, 0]
    np.testing.assert_allclose(error[0], 2 / 3, rtol=1e-6)
    assert np.isnan(error[1])
    assert not error[1] < 1.0


def test_a_class_may_be_masked_out():
    error = answer_error(jnp.asarray([[1.0, 1.0, -jnp.inf]]))
    np.testing.assert_allclose(error, [0.5])


def test_half_precision_logits_are_packed_in_float32():
    packed = pack_answer(jnp.asarray([[1.0, 3.0, 2.0]], jnp.bfloat16))
    assert packed.dtype == jnp.float32 and packed.shape == (1, 5)
    np.testing.assert_allclose(packed[0, 0], reference_error(np.asarray([1.0, 3.0, 2.0])), 1e-6)


def test_labels_of_many_classes_are_exact():
    logits = np.zeros((1, 40_000), np.float32)
    logits[0, 39_999] = 1.0
    assert unpack_answer(np.asarray(pack_answer(jnp.asarray(logits))))[1].tolist() == [39_999]


def reference_entropy(logits):
    wide = logits.astype(np.float64)
    shares = np.exp(wide - wide.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    return -(shares * np.log(shares)).sum(-1) / np.log(logits.shape[-1])


@settings(max_examples=100, deadline=None)
@given(LOGITS)
def test_entropy_in_place_of_the_error(logits):
    packed = np.asarray(pack_answer(jnp.asarray(logits), "entropy"))
    np.testing.assert_allclose(packed[:, 0], reference_entropy(logits), atol=1e-5)
    np.testing.assert_array_equal(
        packed[:, 1:], np.asarray(pack_answer(jnp.asarray(logits)))[:, 1:]
    )


def test_confident_answers_keep_distinct_entropies():
    entropy = np.asarray(answer_entropy(jnp.asarray([[gap, 0.0] for gap in (20.0, 30.0, 60.0)])))
    assert (np.diff(entropy) < 0).all() and entropy[-1] > 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_broken_logits_have_no_entropy(bad):
    assert np.isnan(answer_entropy(jnp.asarray([[0.0, bad, 0.0]]))).all()
