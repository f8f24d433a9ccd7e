"""The table of sites, shared by inject, train-ramps and inspect."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from apparate_jax.core import Site
from apparate_jax.ramps.heads import Ramp


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
