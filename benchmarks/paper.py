"""The paper's evaluation on the project's own workloads: `paper.toml`, as `apparate bench paper`.

Writes results/paper.json, and the report into runs/paper. Workloads without a recording are left
out (``benchmarks/traces.py`` makes and measures them), and whatever else is not there. Words are
options of the command, ``benchmarks/paper.py --quick``; ``--live-of imdb,amazon`` runs only these
on the wall clock.
"""

import argparse
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from _common import write_result
from _demo import ROOT
from _paper_targets import rows
from _traces_profiles import is_measured

from apparate_jax.bench.paper.run import PARTS_FOLDER
from apparate_jax.bench.paper.suite import Suite, Workload, paths_of, read_suite
from apparate_jax.bench.recording import load

SUITE = Path(__file__).with_name("paper.toml")
OUT = ROOT / "runs" / "paper"
RECORDINGS = ("trace", "heavy")
FIGURE = ("key", "ours", "paper", "verdict", "reason")


def missing_of(workload: Workload) -> list[str]:
    """Keys of what is not there; of recordings, those without latencies too."""
    return [
        key
        for key, path in paths_of(workload).items()
        if not path.exists() or (key in RECORDINGS and not is_measured(load(path)))
    ]


def there(suite: Suite) -> list[Workload]:
    """The workloads whose recording is there; they keep what else of theirs is."""
    kept = []
    for one in suite.workloads:
        missing = missing_of(one)
        if "trace" in missing:
            what = "is not there" if not one.trace.exists() else "has no latencies yet (--profiles)"
            print(f"{one.name}: left out, {one.trace.name} {what}: benchmarks/traces.py")
            continue
        if "checkpoint" in missing or "data" in missing:
            missing += ["checkpoint", "data"]
        if missing:
            print(
                f"{one.name}: without {', '.join(sorted(set(missing)))}, not there or no latencies"
            )
        given = {f.name: getattr(one, f.name) for f in fields(one) if f.name not in missing}
        kept.append(Workload(**given))
    return kept


def live_of(words: list[str]) -> tuple[set[str] | None, list[str]]:
    """Names of what is run live, None for all, and the words that are the command's."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--live-of")
    mine, rest = parser.parse_known_args(words)
    return None if mine.live_of is None else set(mine.live_of.split(",")), rest


def as_toml(workloads: list[Workload]) -> str:
    """A suite file, with absolute paths."""
    tables = []
    for one in workloads:
        given = {field.name: getattr(one, field.name) for field in fields(one)}
        lines = [
            f"{key} = {json.dumps(str(value.resolve()) if isinstance(value, Path) else value)}"
            for key, value in given.items()
            if value is not None
        ]
        tables.append("\n".join(["[[workload]]", *lines]))
    return "\n\n".join(tables) + "\n"


def compact(report: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a report: settings, the summary, every finding."""
    findings = [
        {"section": section["key"], "workload": block["workload"]}
        | {key: finding[key] for key in FIGURE}
        for section in report["sections"]
        for block in section["blocks"]
        for finding in block["findings"]
    ]
    skipped = [
        {"section": section["key"], "workload": block["workload"], "reason": block["skipped"]}
        for section in report["sections"]
        for block in section["blocks"]
        if block["skipped"]
    ]
    summary = [
        {key: value for key, value in row.items() if key not in ("figures", "overview")}
        | {"figures": [{key: figure[key] for key in FIGURE} for figure in row["figures"]]}
        for row in report["summary"]
    ]
    kept = ("quick", "config", "verdicts", "parts")
    return {key: report[key] for key in kept} | {
        "summary": summary,
        "findings": findings,
        "skipped": skipped,
    }


def main() -> None:
    """Run the command on what is there, and keep its figures."""
    chosen, words = live_of(sys.argv[1:])
    workloads = there(read_suite(SUITE))
    if chosen is not None:
        if unknown := chosen - {one.name for one in workloads}:
            sys.exit(f"--live-of names {sorted(unknown)}, expected some of the workloads there")
        workloads = [one if one.name in chosen else replace(one, data=None) for one in workloads]
    if not workloads:
        print("skipped: no recordings in runs/traces, benchmarks/traces.py makes them")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    suite = OUT / "suite.toml"
    suite.write_text(as_toml(workloads), encoding="utf-8")
    program = str(Path(sys.executable).parent / "apparate")
    subprocess.run([program, "bench", "paper", suite, "--out", OUT, *words], check=True)
    report = json.loads((OUT / "report.json").read_text(encoding="utf-8"))
    write_result("paper", {"workloads": rows(report, OUT / PARTS_FOLDER), **compact(report)})


if __name__ == "__main__":
    main()
