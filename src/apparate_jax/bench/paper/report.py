"""The report of an evaluation: JSON for machines, pictures, and one HTML file that needs no other.

The HTML loads nothing: style and pictures are inside. It is made from the parts alone, so it can be
made again without measuring.
"""

import base64
import json
import time
from collections import Counter
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from apparate_jax.bench.paper.draw import plot_overview
from apparate_jax.bench.paper.findings import Subject, generative, latency, of_optimal
from apparate_jax.bench.paper.findings import held as held_findings
from apparate_jax.bench.paper.parts import Given
from apparate_jax.bench.paper.published import MEDIANS_BY_MODEL, PUBLISHED
from apparate_jax.bench.paper.published import published as published_figure
from apparate_jax.bench.paper.run import Done
from apparate_jax.bench.paper.sections import SECTIONS, Section
from apparate_jax.bench.paper.verdicts import WORDS, Finding, number, ours_of
from apparate_jax.bench.report import environment

HTML, JSON, PLOTS = "report.html", "report.json", "plots"
OVERVIEW = f"{PLOTS}/overview.png"
SUMMED = ("p50 saved", "p95 saved", "agreement", "throughput", "of optimal")
"""Keys of the figures in the summary."""
PAPER = "Apparate (SOSP 2024, doi 10.1145/3694715.3695963, arXiv 2312.05385)"


def write_report(given: Given, done: Done, out: Path) -> dict[str, Any]:
    """Write pictures, ``report.json`` and ``report.html`` into a folder; the report.

    Args:
        given: Workloads and settings.
        done: Results of the parts.
        out: The folder.
    """
    (out / PLOTS).mkdir(parents=True, exist_ok=True)
    report = build(given, done, out)
    text = json.dumps(report, indent=1, allow_nan=False) + "\n"
    for name, content in ((JSON, text), (HTML, render(report, out))):
        partial = out / f".{name}.partial"
        partial.write_text(content, encoding="utf-8")
        partial.replace(out / name)
    return report


def build(given: Given, done: Done, out: Path) -> dict[str, Any]:
    """The report as JSON values; pictures are drawn into the folder."""
    subjects = [
        Subject(one.name, given.kind(one), given.config, one.rate) for one in given.suite.workloads
    ]
    sections = [_section(section, subjects, done, out) for section in SECTIONS]
    summary = [_summary(subject, done) for subject in subjects]
    plot_overview([row["overview"] for row in summary], out / OVERVIEW)
    said = [f["verdict"] for s in sections for b in s["blocks"] for f in b["findings"]]
    counts = Counter(said)
    return {
        "title": "The evaluation of Apparate's paper, made again with apparate-jax",
        "paper": PAPER,
        "made_at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "quick": given.config.quick,
        "config": given.config.as_json(),
        "environment": environment(),
        "workloads": [_workload(given, subject) for subject in subjects],
        "summary": summary,
        "verdicts": {word: counts[word] for word in WORDS if counts[word]},
        "overview": OVERVIEW,
        "sections": sections,
        "not_reproduced": [finding.as_json() for finding in generative()],
        "published": [_published(one) for one in PUBLISHED],
        "medians_by_model": MEDIANS_BY_MODEL,
        "parts": {
            "made": list(done.made),
            "kept": list(done.kept),
            "took_s": round(sum(kept.took_s for kept in done.results.values()), 1),
        },
    }


def _workload(given: Given, subject: Subject) -> dict[str, Any]:
    one = next(w for w in given.suite.workloads if w.name == subject.workload)
    made = given.recording(one.trace)
    return {
        "name": one.name,
        "kind": subject.kind or "unknown",
        "model": made.model,
        "data": made.workload,
        "rows": len(made),
        "stream": one.stream,
        "pace": one.pace,
        "rate_rps": one.rate,
        "ramps": len(made.ramps),
        "device": made.profile.device,
        "jax": made.profile.jax_version,
    }


def _section(section: Section, subjects: list[Subject], done: Done, out: Path) -> dict[str, Any]:
    blocks = [_block(section, subject, done, out) for subject in subjects]
    return {"key": section.key, "title": section.title, "about": section.about, "blocks": blocks}


def _block(section: Section, subject: Subject, done: Done, out: Path) -> dict[str, Any]:
    """One workload's part of a section."""
    place = (subject.workload, section.part)
    kept = done.results.get(place)
    if kept is None:
        return {
            "workload": subject.workload,
            "skipped": done.skipped.get(place, "it was not run"),
            "findings": [],
            "table": None,
            "picture": None,
        }
    picture = None
    if section.draw is not None:
        picture = f"{PLOTS}/{subject.workload}--{section.key}.png"
        section.draw(subject, kept.result, out / picture)
    return {
        "workload": subject.workload,
        "skipped": None,
        "findings": [_shown(finding) for finding in section.findings(subject, kept.result)],
        "table": section.table(kept.result)._asdict(),
        "picture": picture,
        "took_s": kept.took_s,
    }


def _shown(finding: Finding) -> dict[str, Any]:
    """A finding with its figures as people read them."""
    ours, theirs = finding.ours, finding.published
    text = "-" if ours is None else number(ours.mean, theirs.unit)
    spread = ""
    if ours is not None and ours.runs > 1:
        spread = f"{number(ours.low, '')} to {number(ours.high, '')}"
    return finding.as_json() | {
        "shown": text,
        "spread": spread,
        "paper_shown": theirs.shown,
        "class": finding.verdict.replace(" ", "-"),
    }


def _summary(subject: Subject, done: Done) -> dict[str, Any]:
    """The row of a workload at the top."""
    result = done.result(subject.workload, "systems")
    assert result is not None  # nothing skips it
    found = {
        f.published.key: f for f in (*latency(subject, result), *held_findings(subject, result))
    }
    share = of_optimal(result)
    agreement = ours_of(
        [row["agreement"] for row in result["by_seed"] if row["system"] == "apparate"]
    )
    oracle = ours_of(
        [row["p50_saved_frac"] for row in result["by_seed"] if row["system"] == "oracle"]
    )
    assert agreement is not None and oracle is not None  # both always run
    saved = found["p50 saved"].ours
    theirs = published_figure("p50 saved", subject.kind)
    return {
        "workload": subject.workload,
        "kind": subject.kind or "unknown",
        "figures": [_shown(found[key]) for key in SUMMED],
        "constraint": subject.config.accuracy,
        "constraint_held": agreement.low >= subject.config.accuracy,
        "of_optimal": None if share is None else round(share.mean, 3),
        "overview": {
            "workload": subject.workload,
            "ours": None if saved is None else saved.mean,
            "optimal": 100 * oracle.mean,
            "paper": None if theirs is None else [theirs.low, theirs.high],
        },
    }


def _published(one: Any) -> dict[str, Any]:
    return {
        "what": one.what,
        "shown": one.shown,
        "kind": one.kind or "both",
        "where": one.where,
    }


def render(report: Mapping[str, Any], out: Path) -> str:
    """The HTML of a report.

    Args:
        report: From :func:`build`.
        out: Where its pictures are.
    """
    from jinja2 import Environment, StrictUndefined

    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = files("apparate_jax.bench.paper").joinpath("template.html").read_text("utf-8")

    def inline(name: str) -> str:
        return "data:image/png;base64," + base64.b64encode((out / name).read_bytes()).decode()

    return made.from_string(template).render(r=report, inline=inline)
