"""The table of sites and the hint about gaps: numbers for machines, the same for people."""

import jax.numpy as jnp
import pytest
from rich.console import Console

from apparate_cli.sites import LARGE_GAP_FRAC, gaps_hint, gaps_json, sites_json, sites_table
from apparate_jax.core import Site
from apparate_jax.ramps.heads import Ramp

SITES = (
    Site(0, "stem", 0.25, (2, 8, 8, 3), "float32", "net.py:3 (f)"),
    Site(1, "block[1]", 0.75, (2, 16), "bfloat16", "net.py:9 (f)"),
)


def ramp(site):
    params = {"kernel": jnp.zeros((16, 2)), "bias": jnp.zeros(2)}
    return Ramp(site, SITES[site].name, "identity", params, 0.987654321, 1.5)


def shown(*columns):
    console = Console(width=120, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(sites_table("title", *columns))
    return captured.get()


def test_costs_are_what_lies_between_sites():
    first, second = sites_json(SITES)
    assert first == {
        "name": "stem",
        "depth": 0.25,
        "cost_frac": 0.25,
        "shape": [2, 8, 8, 3],
        "dtype": "float32",
        "source": "net.py:3 (f)",
        "ramp": None,
    }
    assert (second["cost_frac"], second["dtype"]) == (0.5, "bfloat16")


def test_a_ramp_stands_with_its_site():
    first, second = sites_json(SITES, [ramp(1)], (1,))
    assert first["ramp"] is None
    assert (
        second["ramp"].items()
        >= {
            "kind": "identity",
            "bytes": 136,
            "agreement": 0.98765,
            "temperature": 1.5,
            "active": True,
        }.items()
    )
    assert not sites_json(SITES, [ramp(1)])[1]["ramp"]["active"]


def test_for_people():
    plain = shown(SITES)
    assert "batchx8x8x3" in plain and "75" in plain and "ramp" not in plain
    assert "block[1]" in plain, "brackets are no markup"
    full = shown(SITES, [ramp(1)], (1,))
    assert "98.8%" in full and "0.1 KiB" in full and full.count("active") == 1


def at(*depths):
    return [
        Site(i, f"layer_{i}", depth, (2, 8), "float32", "net.py:3 (f)")
        for i, depth in enumerate(depths)
    ]


@pytest.mark.parametrize(
    ("depths", "after", "before", "words"),
    [
        (
            (0.4, 0.6, 0.9),
            None,
            "layer_0",
            "40% of the model's cost before the first site (layer_0)",
        ),
        (
            (0.1, 0.6, 0.9),
            "layer_0",
            "layer_1",
            "50% of the model's cost between layer_0 and layer_1",
        ),
        (
            (0.1, 0.4, 0.65),
            "layer_2",
            None,
            "35% of the model's cost after the last site (layer_2)",
        ),
    ],
)
def test_a_large_gap(depths, after, before, words):
    (gap,) = gaps_json(at(*depths))
    assert (gap["after"], gap["before"]) == (after, before)
    (line,) = gaps_hint(at(*depths))
    assert words in line and "no answer can leave there" in line and "inject it again" in line


def test_two_large_gaps_are_one_line():
    sites = at(0.4, 0.55, 0.95)
    assert [gap["cost_frac"] for gap in gaps_json(sites)] == [0.4, 0.4]
    (line,) = gaps_hint(sites)
    assert "before the first site (layer_0) and in 40%" in line and "layer_1 and layer_2" in line


def test_gaps_up_to_the_limit_are_not_mentioned():
    just, above = LARGE_GAP_FRAC - 1e-6, LARGE_GAP_FRAC + 1e-6
    assert gaps_json(at(just, 2 * just, 0.7)) == gaps_hint(at(just, 2 * just, 0.7)) == []
    assert gaps_hint(at(above, 2 * just, 0.7))
