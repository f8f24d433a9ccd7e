"""What the rounds of the comparison with other servers say: medians, and the targets."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

Row = dict[str, Any]
OWN = "apparate"
KEYS = ("p50_ms", "p95_ms", "p99_ms", "throughput_rps", "agreement", "early_frac", "lost")


def _middle(rows: Iterable[Row], key: str) -> dict[str, float] | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    if not values:
        return None
    return {
        "median": round(float(np.median(values)), 4),
        "lowest": min(values),
        "highest": max(values),
    }


def summary(rows: list[Row]) -> dict[str, Any]:
    """Medians over rounds by load and system, and whether the targets are met.

    Returns:
        ``loads[load][system][key]`` and ``saturated[system]``, each a median with its range;
        ``targets[system]``, what each of our systems was to reach, and whether it did.
    """
    systems = list(dict.fromkeys(row["system"] for row in rows))
    loads = sorted({row["load"] for row in rows if "load" in row})
    table = {
        str(load): {
            name: {
                key: found
                for key in KEYS
                if (found := _middle(_of(rows, name, load), key)) is not None
            }
            for name in systems
        }
        for load in loads
    }
    saturated = {name: _middle(_of(rows, name, None), "saturated_rps") for name in systems}
    targets = {
        name: _targets(name, systems, table, saturated) for name in systems if name.startswith(OWN)
    }
    return {"loads": table, "saturated_rps": saturated, "targets": targets}


def _of(rows: list[Row], name: str, load: float | None) -> list[Row]:
    return [row for row in rows if row["system"] == name and row.get("load") == load]


def _targets(
    name: str, systems: list[str], table: dict[str, Any], saturated: dict[str, Any]
) -> dict[str, Any]:
    """The lowest p50 and p99 at every load, and at least the peers' throughput."""
    peers = [peer for peer in systems if not peer.startswith(OWN)]
    found: dict[str, Any] = {}
    for load, by_system in table.items():
        for key in ("p50_ms", "p99_ms"):
            values = {system: row.get(key) for system, row in by_system.items()}
            found[f"{key} at {load}"] = _against(name, peers, values, min)
    found["throughput"] = _against(name, peers, saturated, max)
    return found


def _against(
    name: str,
    peers: list[str],
    values: Mapping[str, dict[str, float] | None],
    best_of: Callable[..., Any],
) -> dict[str, Any]:
    known = {s: value["median"] for s in (name, *peers) if (value := values.get(s)) is not None}
    rivals = {peer: known[peer] for peer in peers if peer in known}
    if name not in known or not rivals:
        return {}
    best = best_of(rivals, key=rivals.__getitem__)
    met = known[name] == best_of(known[name], rivals[best])
    ratio = round(known[name] / rivals[best], 4)
    return {"met": met, "best_peer": best, "over_best_peer": ratio}
