"""The table of sites, shared by inject, train-ramps and inspect, and the hint about large gaps."""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

from apparate_jax.core import Site
from apparate_jax.ramps.heads import Ramp

LARGE_GAP_FRAC = 1 / 3
"""Share of a model's cost without a site; commands say so where a stretch is larger."""


class Gap(NamedTuple):
    """A stretch of a model without a site.

    Attributes:
        after: Name of the site where it starts, None at the input.
        before: Name of the site where it ends, None at the logits.
        cost_frac: Share of the model's cost.
    """

    after: str | None
    before: str | None
    cost_frac: float


def large_gaps(sites: Sequence[Site]) -> list[Gap]:
    """Stretches of more than :data:`LARGE_GAP_FRAC`, from the input to the logits."""
    places = [(None, 0.0), *((site.name, site.depth) for site in sites), (None, 1.0)]
    stretches = (Gap(a, b, there - here) for (a, here), (b, there) in itertools.pairwise(places))
    return [gap for gap in stretches if gap.cost_frac > LARGE_GAP_FRAC]


def gaps_json(sites: Sequence[Site]) -> list[dict[str, Any]]:
    """The same, one object per stretch."""
    return [{**gap._asdict(), "cost_frac": round(gap.cost_frac, 5)} for gap in large_gaps(sites)]


def gaps_hint(sites: Sequence[Site]) -> list[str]:
    """The same for people: one line with all of them, or none."""
    gaps = large_gaps(sites)
    if not gaps:
        return []
    parts = [f"{gap.cost_frac:.0%} of the model's cost {_where(gap)}" for gap in gaps]
    return [
        f"note: no site in {' and in '.join(parts)}: no answer can leave there. If the model is "
        "yours, bring what runs in parallel there together in one value, or split the layer there, "
        "and inject it again; else take a model with more sites"
    ]


def _where(gap: Gap) -> str:
    if gap.after is None:
        return f"before the first site ({gap.before})"
    if gap.before is None:
        return f"after the last site ({gap.after})"
    return f"between {gap.after} and {gap.before}"


def sites_json(
    sites: Sequence[Site], ramps: Sequence[Ramp] = (), active: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """One object per site, with its ramp if it has one."""
    by_site = {ramp.site: ramp for ramp in ramps}
    rows = []
    before = 0.0
    for site in sites:
        ramp = by_site.get(site.index)
        rows.append(
            {
                "name": site.name,
                "depth": round(site.depth, 5),
                "cost_frac": round(site.depth - before, 5),
                "shape": list(site.shape),
                "dtype": site.dtype,
                "source": site.source,
                "ramp": None
                if ramp is None
                else {
                    "kind": ramp.kind,
                    "bytes": ramp.num_bytes,
                    "agreement": round(ramp.agreement, 5),
                    "temperature": round(ramp.temperature, 5),
                    "active": site.index in active,
                },
            }
        )
        before = site.depth
    return rows


def sites_table(
    title: str, sites: Sequence[Site], ramps: Sequence[Ramp] = (), active: Sequence[int] = ()
) -> Table:
    """The same for people."""
    table = Table(title=title, title_justify="left")
    for name in ("site", "depth", "cost", "shape"):
        table.add_column(name, justify="left" if name in ("site", "shape") else "right")
    if ramps:
        table.add_column("ramp")
        for name in ("size", "agrees"):
            table.add_column(name, justify="right")
        table.add_column("at start")
    for row in sites_json(sites, ramps, active):
        shape = "x".join(map(str, ["batch", *row["shape"][1:]]))
        cells = [row["name"], f"{row['depth']:.3f}", f"{row['cost_frac']:.1%}", shape]
        if ramps:
            ramp = row["ramp"]
            cells += (
                ["", "", "", ""]
                if ramp is None
                else [
                    ramp["kind"],
                    f"{ramp['bytes'] / 1024:.1f} KiB",
                    f"{ramp['agreement']:.1%}",
                    "active" if ramp["active"] else "",
                ]
            )
        table.add_row(*cells)
    return table
