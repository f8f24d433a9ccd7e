"""The picture: a PNG of the stated size with something on it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from apparate_jax.bench.plot import COLOURS, plot_comparison
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.core import ExitPlan
from apparate_jax.serve.service import Service
from tests.bench import tiny
from tests.serve import models

SIZE = (1560, 504)


@pytest.fixture(scope="module")
def service():
    return Service(models.programs(models.mlp()), tiny.PROFILE, tiny.config())


def drawn(service, path, result, oracle_ms):
    report = build_report(Subject.of(service, "rows.npz"), result, 0.4, oracle_ms)
    plot_comparison(report, result, oracle_ms, path)
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", SIZE)
        return np.asarray(image.convert("RGB")).astype(int)


def share_of(colour, pixels):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return (np.abs(pixels - wanted).max(axis=-1) < 12).mean()


@pytest.mark.parametrize("oracle", [True, False])
def test_all_curves_are_there(service, tmp_path, oracle):
    oracle_ms = np.linspace(2, 5, 8) if oracle else None
    pixels = drawn(service, tmp_path / "report.png", tiny.result(), oracle_ms)
    for third in np.array_split(pixels, 3, axis=1):
        assert 0.005 < (third < 128).all(axis=-1).mean() < 0.5, "text and axes in each panel"
    assert share_of(COLOURS["vanilla"], pixels) > 2e-4
    assert share_of(COLOURS["apparate"], pixels) > 2e-2, "bars"
    assert bool(share_of(COLOURS["oracle"], pixels) > 1e-4) is oracle


def test_the_name_does_not_choose_the_format(service, tmp_path):
    drawn(service, tmp_path / "report.partial", tiny.result(), None)


def test_a_model_without_ramps(service, tmp_path):
    result = tiny.result()
    rounds = tuple(
        r._replace(answers=dict.fromkeys(r.answers, tiny.answers([3, 4, 5, 6], [0] * 4)))
        for r in result.rounds
    )
    bare = service._replace(profile=replace(tiny.PROFILE, sites=()))
    outside = tiny.answers([9] * 8, [0] * 8)
    made = result._replace(rounds=rounds, plan=ExitPlan(), outside=outside)
    drawn(bare, tmp_path / "report.png", made, None)
