"""The table of sites: numbers for machines, the same for people."""

import jax.numpy as jnp
from rich.console import Console

from apparate_cli.sites import sites_json, sites_table
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
