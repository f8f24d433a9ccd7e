"""The paper's evaluation on the project's own workloads: `paper.toml`, as `apparate bench paper`.

Writes results/paper.json, and the report into runs/paper. Workloads without a recording are left
out (``benchmarks/traces.py`` makes them), and with them whatever else of theirs is not there. The
study of arrivals has Azure's conversations too where $APPARATE_DATA/traces/azure_llm_conv.csv is
there. Words are options of the command: ``benchmarks/paper.py --quick``.
"""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from _common import write_result
from _demo import ROOT

from apparate_jax.bench.paper.suite import PATHS, Suite, Workload, paths_of, read_suite

SUITE = Path(__file__).with_name("paper.toml")
OUT = ROOT / "runs" / "paper"
ARRIVALS = Path(os.environ.get("APPARATE_DATA", "")) / "traces" / "azure_llm_conv.csv"
FIGURE = ("key", "what", "ours", "paper", "verdict", "reason", "sentence")


def there(suite: Suite) -> list[Workload]:
    """The workloads whose recording is there; they keep what else of theirs is."""
    kept = []
    for one in suite.workloads:
        missing = [key for key, path in paths_of(one).items() if not path.exists()]
        if "trace" in missing:
            print(f"{one.name}: left out, there is no {one.trace.name} (benchmarks/traces.py)")
            continue
        if "checkpoint" in missing or "data" in missing:
            missing += ["checkpoint", "data"]
        if missing:
            print(f"{one.name}: without {', '.join(sorted(set(missing)))}, which is not there")
        given = {f.name: getattr(one, f.name) for f in fields(one) if f.name not in missing}
        if one.arrivals is None and ARRIVALS.is_file():
            given["arrivals"] = ARRIVALS
        kept.append(Workload(**given))
    return kept


def as_toml(workloads: list[Workload]) -> str:
    """A suite file, with absolute paths."""
    tables = []
    for one in workloads:
        lines = ["[[workload]]", f"name = {json.dumps(one.name)}", f"kind = {json.dumps(one.kind)}"]
        given = {key: path for key, path in paths_of(one).items() if key in PATHS}
        lines += [f"{key} = {json.dumps(str(path.resolve()))}" for key, path in given.items()]
        tables.append("\n".join(lines))
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
    kept = ("quick", "config", "workloads", "verdicts", "parts")
    return {key: report[key] for key in kept} | {
        "summary": summary,
        "findings": findings,
        "skipped": skipped,
    }


def main() -> None:
    """Run the command on what is there, and keep its figures."""
    workloads = there(read_suite(SUITE))
    if not workloads:
        print("skipped: no recordings in runs/traces, benchmarks/traces.py makes them")
        return
    OUT.mkdir(parents=True, exist_ok=True)
    suite = OUT / "suite.toml"
    suite.write_text(as_toml(workloads), encoding="utf-8")
    program = str(Path(sys.executable).parent / "apparate")
    words = ["bench", "paper", str(suite), "--out", str(OUT), *sys.argv[1:]]
    subprocess.run([program, *words], check=True)
    report = json.loads((OUT / "report.json").read_text(encoding="utf-8"))
    write_result("paper", compact(report))


if __name__ == "__main__":
    main()
