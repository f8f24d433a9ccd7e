"""One service for the tests that only look at it."""

import pytest

from apparate_jax.serve.service import prepare
from tests.bench import tiny


@pytest.fixture(scope="package")
def service():
    made = prepare(tiny.checkpoint(), tiny.config())
    assert made.profile.sites == (0, 1)
    yield made
    made.programs.close()
