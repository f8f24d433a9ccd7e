"""Every error has a kind, and every frontend a status for each kind."""

import pytest

from apparate_jax.errors import (
    DeadlinePassedError,
    DeadlineUnreachableError,
    EngineClosedError,
    NumericsError,
    QueueFullError,
    RequestError,
)
from apparate_jax.serve.http.errors import error_response
from apparate_jax.serve.inference import Kind, Refusal, kind_of, public_text


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RequestError("x"), Kind.INVALID),
        (QueueFullError("x"), Kind.FULL),
        (DeadlineUnreachableError("x"), Kind.FULL),
        (DeadlinePassedError("x"), Kind.LATE),
        (EngineClosedError("x"), Kind.UNAVAILABLE),
        (NumericsError("x"), Kind.FAILED),
        (KeyError("x"), Kind.FAILED),
        (Refusal(Kind.LATE, "x"), Kind.LATE),
    ],
)
def test_kinds(error, kind):
    assert kind_of(error) is kind


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_has_a_status(kind):
    response = error_response(Refusal(kind, "why"), 7)
    assert 400 <= response.status_code < 600
    assert (response.headers.get("Retry-After") == "7") is (kind is Kind.FULL)


def test_unexpected_errors_keep_their_text_to_themselves():
    assert public_text(RequestError("shape is [2]")) == "shape is [2]"
    assert "secret" not in public_text(ValueError("secret"))
