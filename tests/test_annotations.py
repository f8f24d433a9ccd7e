"""Shapes and types in annotations are really checked while tests run (tests/conftest.py)."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from apparate_jax.control.bitmask import pack
from apparate_jax.ramps.answer import answer_error


def test_another_type_is_refused():
    pack(jnp.zeros((2, 40), bool))
    with pytest.raises(TypeCheckError, match="flags"):
        pack(jnp.zeros((2, 40)))


def test_another_shape_is_refused():
    with pytest.raises(TypeCheckError, match="flags"):
        pack(jnp.zeros(40, bool))
    with pytest.raises(TypeCheckError, match="logits"):
        answer_error([0.5, 0.5])
