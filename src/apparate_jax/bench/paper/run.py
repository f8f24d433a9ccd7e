"""Run what is missing of an evaluation, and say how long the rest will take."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from apparate_jax.bench.paper.measure import Progress
from apparate_jax.bench.paper.parts import (
    PARTS,
    Given,
    Part,
    digests_of,
    settings_of,
    why_not,
)
from apparate_jax.bench.paper.store import Kept, Store, fingerprint
from apparate_jax.bench.paper.suite import Workload
from apparate_jax.errors import ApparateError

PARTS_FOLDER = "parts"
Begin = Callable[[str], Progress]
"""Called with a part's title as it begins; what it gives is told of its progress."""
OnDone = Callable[["Step", str | None, float], None]
"""Called after each part with it, why it failed if it did, and about how many seconds are left."""


class Step(NamedTuple):
    """A part of a workload.

    Attributes:
        workload: Whose.
        part: Which.
        mark: Fingerprint of its inputs and settings.
        skipped: Why it is not run; None if it is.
    """

    workload: Workload
    part: Part
    mark: str
    skipped: str | None

    @property
    def name(self) -> str:
        """Of its file."""
        return "--".join(self.place)

    @property
    def place(self) -> tuple[str, str]:
        """Workload and part, by their names."""
        return self.workload.name, self.part.name

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.workload.name}: {self.part.title}"


class Done(NamedTuple):
    """What an evaluation has.

    Attributes:
        results: By workload and part.
        skipped: Reasons, by workload and part.
        kept: Names of parts that were there already.
        made: Names of parts that were made now.
        failed: Names of parts that could not be made; the reasons are among those of the skipped.
    """

    results: dict[tuple[str, str], Kept]
    skipped: dict[tuple[str, str], str]
    kept: tuple[str, ...]
    made: tuple[str, ...]
    failed: tuple[str, ...] = ()

    def result(self, workload: str, part: str) -> dict[str, Any] | None:
        """A part's result, None if it was skipped."""
        found = self.results.get((workload, part))
        return None if found is None else found.result


def steps_of(given: Given, parts: Sequence[Part] = PARTS) -> list[Step]:
    """Every part of every workload."""
    steps = []
    for workload in given.suite.workloads:
        for part in parts:
            skipped = why_not(part, workload, given)
            mark = ""
            if skipped is None:
                settings = settings_of(part, workload, given)
                mark = fingerprint(part.name, settings, digests_of(part, workload, given))
            steps.append(Step(workload, part, mark, skipped))
    return steps


def cost_of(step: Step, given: Given) -> float:
    """How much work a part is, in replays under a controller."""
    return step.part.weight * (given.config.seeds if step.part.seeded else 1)


def run(
    given: Given,
    out: Path,
    *,
    parts: Sequence[Part] = PARTS,
    force: bool = False,
    begin: Begin = lambda title: lambda done, total, what: None,
    on_done: OnDone = lambda step, failed, left_s: None,
) -> Done:
    """Make what is missing. A part that fails does not end the others, unless all rest on it.

    Args:
        given: Workloads and settings.
        out: Folder; results lie in its ``parts``.
        parts: Which there are.
        force: Make all of it again.
        begin: Told of each part that begins.
        on_done: Told of each part that ended.

    Raises:
        ConfigError: Nothing can be written there.
        DataError: A recording cannot be read, or does not fit another.
    """
    given.check()
    store = Store(out / PARTS_FOLDER)
    steps = steps_of(given, parts)
    found = {s.name: store.get(s.name, s.mark) for s in steps if s.skipped is None and not force}
    there = {name: kept for name, kept in found.items() if kept is not None}
    missing = [s for s in steps if s.skipped is None and s.name not in there]
    made, failed = _make(missing, given, store, begin, on_done)
    every = there | made
    return Done(
        {s.place: every[s.name] for s in steps if s.name in every},
        {s.place: s.skipped for s in steps if s.skipped is not None} | failed,
        tuple(there),
        tuple(made),
        tuple("--".join(place) for place in failed),
    )


def _make(
    missing: Sequence[Step], given: Given, store: Store, begin: Begin, on_done: OnDone
) -> tuple[dict[str, Kept], dict[tuple[str, str], str]]:
    """Make parts one after the other; what was made, and why others were not."""
    made: dict[str, Kept] = {}
    failed: dict[tuple[str, str], str] = {}
    left = sum(cost_of(step, given) for step in missing)
    spent_s = spent = 0.0
    for step in missing:
        start = time.perf_counter()
        try:
            result = step.part.run(given, step.workload, begin(step.title))
            took_s = round(time.perf_counter() - start, 3)
            made[step.name] = store.put(step.name, step.mark, result, took_s)
        except ApparateError as error:
            if step.part.needed:
                raise
            failed[step.place] = f"it failed: {error}"
        cost = cost_of(step, given)
        spent_s, spent, left = spent_s + time.perf_counter() - start, spent + cost, left - cost
        on_done(step, failed.get(step.place), max(0.0, left) * spent_s / spent)
    return made, failed
