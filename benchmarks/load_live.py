"""The load sweep on the live engine: early answers against the original, paired, at several loads.

Both systems, and the original a second time, take the same arrivals in turn, twelve rounds at each
load; medians and middle halves of the rounds' own ratios. What the original differs by from itself
is the noise floor of the machine. Throughput is measured at each load anew, with a queue that is
never empty. Targets: at least 0.98 x the original's throughput; p50, p95 and p99 at most x 1.02,
x 1.05 from 60 % of the capacity on.

Usage: ``python benchmarks/load_live.py [LOAD ...]``; loads that are not named keep their figures.
Writes results/load_live.json.
"""

import sys
from typing import Any

import numpy as np
from _common import earlier, write_result
from _demo import ROOT, RUN, demo_checkpoint

from apparate_jax.bench.comparison import AGAIN
from apparate_jax.bench.live import LiveConfig, run_live
from apparate_jax.bench.report import Subject, build_report
from apparate_jax.data import load_data
from apparate_jax.serve import Service, prepare

LOADS = (0.2, 0.5, 0.7, 0.9)
ROUNDS = 12
ROUND_S = 5.0
KEYS = ("p25_ms", "p50_ms", "p95_ms", "p99_ms", "throughput_rps")


def spread(rows: list[dict[str, Any]], key: str, system: str) -> dict[str, Any]:
    """A system's ratios over the original, round by round."""
    ratios = [one[system][key] / one["vanilla"][key] for one in rows]
    low, middle, high = np.percentile(ratios, (25, 50, 75))
    return {
        "median": round(float(middle), 4),
        "middle_half": [round(float(low), 4), round(float(high), 4)],
        "rounds": [round(ratio, 4) for ratio in ratios],
    }


def measure(service: Service, data: Any, load: float) -> dict[str, Any]:
    """Ratios of the rounds at one load, early answers over the original."""
    config = LiveConfig(
        load_frac=load, rounds=ROUNDS, round_s=ROUND_S, saturation_s=1.0, noise_floor=True
    )
    report = build_report(
        Subject.of(service, data.name), run_live(service, data, config), load, None
    )
    rows = report["rounds"]
    row: dict[str, Any] = {"load_frac": load, "rate_rps": report["rate_rps"]}
    for key in KEYS:
        name = key.rsplit("_", 1)[0]
        row[name] = spread(rows, key, "apparate") | {"again": spread(rows, key, AGAIN)}
    row["agreement"] = report["apparate"]["agreement"]
    return row


def known() -> list[dict[str, Any]]:
    """What an earlier run of these rounds measured."""
    found = earlier("load_live")
    rows: list[dict[str, Any]] = found.get("loads", [])
    return rows if (found.get("rounds"), found.get("round_s")) == (ROUNDS, ROUND_S) else []


def main() -> None:
    """Measure every load."""
    checkpoint = demo_checkpoint()
    sys.path.insert(0, str(ROOT / "examples"))
    import imdb

    stream = RUN / "stream.csv"
    imdb.write("stream", stream, limit=6000)
    data = load_data(stream, checkpoint.model)
    service = prepare(checkpoint)
    rows = {row["load_frac"]: row for row in known()}
    for load in [float(word) for word in sys.argv[1:]] or LOADS:
        row = rows[load] = measure(service, data, load)
        shown = {key: value["median"] for key, value in row.items() if isinstance(value, dict)}
        print(load, shown, row["agreement"], flush=True)
    service.programs.close()
    write_result(
        "load_live",
        {"rounds": ROUNDS, "round_s": ROUND_S, "loads": [rows[load] for load in sorted(rows)]},
    )


if __name__ == "__main__":
    main()
