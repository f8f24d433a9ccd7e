"""A server's status as a screen: a pure function from what ``/apparate/status`` answers.

``apparate top`` and ``apparate serve --watch`` show it. Colour only adds: all is said in words too.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from apparate_cli.marks import UNKNOWN, bar, ms, number, percent, span, spark

Status = Mapping[str, Any]

WIDE = 100
"""Columns from which what belongs together stands side by side."""
_BESIDE = 48  # of latencies
_BAR, _TREND = 5, 5  # columns that bars and lines have at least
_NUMBERS = 2 + 7 + 2 + 9 + 2 + 9  # of the table of exits: shares, thresholds, what is saved
_WHOLE = 72  # columns inside from which nothing is left out
EVENTS = 6
"""Events that are shown, the latest ones."""
_GOOD, _BAD, _DIM, _LABEL = "green", "bold red", "dim", "bold"
_PERCENTILES = ("p25", "p50", "p95", "p99")


def screen(
    status: Status,
    *,
    width: int,
    source: str = "",
    model: str | None = None,
    ascii_only: bool = False,
) -> RenderableType:
    """What to print.

    Args:
        status: What ``/apparate/status?history=N`` answers.
        width: Columns.
        source: Where it is from, for the first line.
        model: Name of the model that is shown in full; every one if None.
        ascii_only: Draw with ASCII, where the terminal has nothing else.

    Returns:
        A line about the server, a table of the models if there are several, and a panel for each.
    """
    models = [one for one in status["models"] if model in (None, one["name"])]
    parts: list[RenderableType] = [_server(status["server"], source)]
    if len(status["models"]) > 1:
        parts.append(_models(status["models"], width, ascii_only))
    parts += [_model(one, width, ascii_only) for one in models]
    gone = [
        Text(f"{one['name']} is not served: {one['state']} {one['reason']}".strip(), style=_BAD)
        for one in status.get("unavailable", ())
        if model in (None, one["name"])
    ]
    if not models and not gone:
        there = ", ".join(one["name"] for one in status["models"])
        missing = f"no model {model!r} here: there are {there}" if there else "no model is served"
        gone = [Text(missing, style=_BAD)]
    return Group(*parts, *gone)


def _server(server: Status, source: str) -> Text:
    line = Text(f"{server['name']} {server['version']}", style=_LABEL)
    line.append(f"  {source}" if source else "", style="not bold")
    line.append(f"  up {span(server['uptime_s'])}", style="not bold dim")
    return line


def _box(ascii_only: bool) -> box.Box:
    return box.ASCII if ascii_only else box.ROUNDED


def _grid(*justify: str) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for side in justify:
        grid.add_column(justify=side, no_wrap=True)  # type: ignore[arg-type]
    return grid


def _models(models: Sequence[Status], width: int, ascii_only: bool) -> Table:
    """One line for each of several models."""
    table = Table(box=_box(ascii_only), width=width, header_style=_LABEL, border_style=_DIM)
    table.add_column("model", ratio=1, no_wrap=True, overflow="ellipsis")
    columns = _MODEL_COLUMNS if width >= _WHOLE + 4 else _MODEL_COLUMNS[:4]
    for heading, _ in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for one in models:
        name = f"{one['name']} {one['version']}"
        values = (read(one) for _, read in columns)
        table.add_row(Text(name if one["ready"] else f"{name} (not ready)"), *values)
    return table


def _early(one: Status) -> str:
    return percent(1.0 - one["exits"][-1]["share_lately"], 0) if one["answers"] else UNKNOWN


_MODEL_COLUMNS: tuple[tuple[str, Callable[[Status], str]], ...] = (
    ("answers/s", lambda one: number(one["throughput_rps"])),
    ("p50 now", lambda one: ms(one["latency_ms"]["p50"])),
    ("vanilla", lambda one: ms(one["vanilla_ms"]["p50"])),
    ("agreement", lambda one: percent(one["accuracy"]["agreement"], 2)),
    ("early", _early),
    ("queue", lambda one: number(one["queue"])),
)


def _model(one: Status, width: int, ascii_only: bool) -> Panel:
    inner = width - 4
    beside = _BESIDE if width >= WIDE else 0
    latency, load = _latency(one), _load(one, min(60, inner - beside - 20), ascii_only)
    accuracy = _accuracy(one["accuracy"], inner)
    if beside:
        top = Table.grid(padding=(0, 4, 0, 0))
        top.add_row(latency, load)
        above: list[RenderableType] = [top]
    else:
        above = [latency, Text(), load]
    parts = [*above, Text(), accuracy, Text(), _exits(one, inner, ascii_only), Text(), _events(one)]
    state = "ready" if one["ready"] else "NOT READY"
    title = Text(f" {one['name']} version {one['version']}, {state} ")
    title.stylize(_LABEL if one["ready"] else _BAD)
    return Panel(
        Group(*parts),
        title=title,
        title_align="left",
        box=_box(ascii_only),
        width=width,
        border_style=_DIM,
    )


def _latency(one: Status) -> Table:
    """Percentiles of the last answers, beside what they would have been."""
    now, vanilla = one["latency_ms"], one["vanilla_ms"]
    grid = _grid("left", *("right",) * len(_PERCENTILES))
    grid.add_row(Text("latency, ms", style=_LABEL), *(Text(p, style=_DIM) for p in _PERCENTILES))
    grid.add_row("with early answers", *(ms(now[p]) for p in _PERCENTILES))
    grid.add_row("without (vanilla)", *(ms(vanilla[p]) for p in _PERCENTILES))
    grid.add_row("saved", *(_saved(now[p], vanilla[p]) for p in _PERCENTILES))
    return grid


def _saved(now: float | None, vanilla: float | None) -> Text:
    if now is None or not vanilla:
        return Text("-")
    saved = 1.0 - now / vanilla
    return Text(percent(saved, 0), style=_GOOD if saved > 0.005 else "")


def _load(one: Status, room: int, ascii_only: bool) -> Table:
    """Throughput, queue and batches."""
    history = one.get("history", {})
    grid = _grid("left", "right", "left")

    def line(label: str, value: str, column: str, most: float | None = None) -> None:
        drawn = spark(history.get(column, ()), room, most=most, ascii_only=ascii_only)
        grid.add_row(Text(label, style=_LABEL), value, Text(drawn, style="cyan"))

    line("answers/s", number(one["throughput_rps"]), "throughput_rps")
    line("queue", number(one["queue"]), "queue")
    medians = (("p50, ms", "p50_ms"), ("vanilla", "vanilla_p50_ms"))
    found = [value for _, name in medians for value in history.get(name, ()) if value is not None]
    for label, name in medians:
        line(label, ms(_latest(history.get(name, ()))), name, max(found, default=None))
    grid.add_row(Text("batch", style=_LABEL), number(one["mean_batch"]), _batches(one["batches"]))
    return grid


def _batches(batches: Mapping[str, int]) -> Text:
    """The most usual padded sizes and their shares."""
    total = sum(batches.values())
    usual = sorted(batches, key=lambda size: -batches[size])[:3]
    text = ", ".join(f"{size}: {percent(batches[size] / total, 0)}" for size in usual)
    return Text(text and f"of {text}", style=_DIM)


def _latest(values: Sequence[float | None]) -> float | None:
    return next((value for value in reversed(values) if value is not None), None)


def _accuracy(found: Status, inner: int) -> Table:
    """Agreement with the original model, against what was promised."""
    promise, least = found["promise"], percent(1.0 - found["max_disagreement"], 2)
    checked, window = found["checked"], found["window"]
    agrees = None if not window else 1.0 - found["window_disagreed"] / window
    held = found["disagreed"] <= found["allowed"]
    within = found["window_disagreed"] <= found["window_allowed"]
    promised = "may" if promise == "window" else "would be"
    rows = (
        (
            Text("agreement", style=_LABEL),
            Text(percent(found["agreement"], 2)),
            _verdict(held, promise != "none") if checked else Text(),
            f"{number(found['disagreed'])} of {number(checked)} differ, "
            f"{number(int(found['allowed']))} may ({least}, {promise})",
        ),
        (
            Text(f"last {window}", style=_LABEL),
            Text(percent(agrees, 2)),
            _verdict(within, promise == "window") if window else Text(),
            f"{found['window_disagreed']} differ, {found['window_allowed']} {promised} ({least})",
        ),
    )
    grid = _grid("left", "right", "left", "left")
    for label, share, verdict, words in rows:
        if inner >= _WHOLE:
            grid.add_row(label, share, verdict, Text(words))
        else:
            grid.add_row(label, share, verdict)
    if inner < _WHOLE:
        below = Table.grid()
        below.add_row(grid)
        for *_, words in rows:
            below.add_row(Text(words, style=_DIM))
        return below
    return grid


def _verdict(within: bool, promised: bool) -> Text:
    if within:
        return Text("holds", style=_GOOD)
    return Text("BROKEN", style=_BAD) if promised else Text("below", style="yellow")


def _exits(one: Status, inner: int, ascii_only: bool) -> Table:
    """A row for each exit: how many left there lately, and what its ramp is set to."""
    shown = [e for e in one["exits"] if e["active"] or e["share_lately"] or e["stopped"]]
    past = one.get("history", {}).get("thresholds", {})
    names = min(max(len(e["exit"]) for e in shown), max(24, inner // 3))
    room = inner - names - _NUMBERS
    counts = 2 + max(7, *(len(number(e["answers"])) for e in shown))
    count = room >= counts + _BAR  # else how many answers there were is left out first
    wide, drawn = _columns(room - counts if count else room, bool(past))
    heading = f"last {span(len(one['history']['at_s']))}" if past else ""
    columns: list[tuple[str, str, Callable[[Status], RenderableType]]] = [
        ("" if wide else "lately", "right", lambda e: percent(e["share_lately"], 1)),
        ("threshold", "right", _threshold),
        ("saves, ms", "right", _utility),
    ]
    if wide:
        columns.insert(0, ("lately", "left", lambda e: _bar(e["share_lately"], wide, ascii_only)))
    if drawn:
        heading = heading if len(heading) <= drawn else "trend"
        trend = lambda e: _trend(past.get(e["exit"], ()), drawn, ascii_only)  # noqa: E731
        columns.insert(3, (heading, "left", trend))
    if count:
        columns.append(("answers", "right", lambda e: number(e["answers"])))
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=names)
    for _, justify, _ in columns:
        grid.add_column(justify=justify, no_wrap=True)  # type: ignore[arg-type]
    grid.add_row(Text("exit", style=_LABEL), *(Text(name, style=_DIM) for name, _, _ in columns))
    for e in shown:
        grid.add_row(Text(e["exit"]), *(read(e) for _, _, read in columns))
    return grid


def _columns(room: int, past: bool) -> tuple[int, int]:
    """Widths of bars and of lines over time, of what is left for both; 0 is none."""
    room -= 2  # between a bar and what follows
    if room < _BAR:
        return 0, 0
    if not past or room < _BAR + 2 + _TREND:
        return min(24, room), 0
    wide = max(_BAR, min(24, room // 2))
    return wide, min(40, room - wide - 2)


def _threshold(exit_: Status) -> str:
    return UNKNOWN if exit_["threshold"] is None else f"{exit_['threshold']:.3f}"


def _bar(share: float, width: int, ascii_only: bool) -> Text:
    return Text(bar(share, width, ascii_only=ascii_only), style="blue")


def _trend(values: Sequence[float | None], width: int, ascii_only: bool) -> Text:
    return Text(spark(values, width, ascii_only=ascii_only), style="cyan")


def _utility(exit_: Status) -> Text:
    if not exit_["active"]:
        return Text("stopped" if exit_["stopped"] else "off", style="yellow")
    utility = exit_["utility_ms"]
    if utility is None:
        return Text("-")
    return Text(f"{utility:+.2f}", style=_GOOD if utility > 0 else "yellow")


def _events(one: Status) -> RenderableType:
    """What control did last, the latest first."""
    control = one["control"]
    counts = (
        ("tunings", control["tunings"]),
        ("changes of ramps", control["set_changes"]),
        ("ramps stopped", control["ramps_stopped"]),
    )
    failed = one["requests"]["failed"]
    line = Text("control", style=_LABEL)
    line.append("  " + ", ".join(f"{what} {number(n)}" for what, n in counts), style="not bold")
    lines: list[RenderableType] = [line]
    if failed:
        text = ", ".join(f"{reason} {number(n)}" for reason, n in failed.items())
        lines.append(Text(f"not answered  {text}", style="yellow"))
    lines += [_event(event) for event in _last(one["events"], EVENTS)]
    return Group(*lines)


def _last(events: Sequence[Status], count: int) -> Iterable[Status]:
    return list(reversed(events[-count:]))


def _event(event: Status) -> Text:
    clock = time.strftime("%H:%M:%S", time.localtime(event["at_s"]))
    line = Text(f"{clock}  ", style=_DIM)
    line.append(event["text"], style="not dim")
    return line
