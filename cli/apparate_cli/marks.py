"""Numbers, bars and lines of a screen as text."""

from collections.abc import Sequence

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_PLAIN_LEVELS = "_.-=+*%#"
UNKNOWN = "-"


def ms(value: float | None) -> str:
    """Milliseconds with three digits that count: ``0.42``, ``4.20``, ``42.0``, ``420``."""
    if value is None:
        return UNKNOWN
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def number(value: float | None) -> str:
    """A count or a rate: ``7``, ``7.25``, ``1,234``."""
    if value is None:
        return UNKNOWN
    if value == int(value) or value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def percent(share: float | None, digits: int) -> str:
    """A share as ``41.2 %``; never rounded up to 100."""
    if share is None:
        return UNKNOWN
    text = f"{100 * share:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    if share < 1 and text == f"{100:.{digits}f}":
        text = f"{100 - 10**-digits:.{digits}f}"
    return f"{text} %"


def span(seconds: float) -> str:
    """How long something lasts: ``12 s``, ``3 min 4 s``, ``2 h 5 min``, ``3 d 1 h``."""
    whole = int(seconds)
    units = (("d", whole // 86400), ("h", whole // 3600 % 24), ("min", whole // 60 % 60),
             ("s", whole % 60))  # fmt: skip
    first = next((n for n, (_, count) in enumerate(units) if count), 3)
    return " ".join(f"{count} {unit}" for unit, count in units[first : first + 2] if count) or "0 s"


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A share as a bar that fills ``width`` when it is all."""
    share = min(max(share, 0.0), 1.0)
    if ascii_only:
        return ("#" * round(share * width)).ljust(width)
    whole, eighths = divmod(round(share * width * 8), 8)
    return ("█" * whole + (_EIGHTHS[eighths] if eighths else "")).ljust(width)


def spark(
    values: Sequence[float | None],
    width: int,
    *,
    most: float | None = None,
    ascii_only: bool = False,
) -> str:
    """Values as a line of blocks from 0 to the largest; nothing where one is unknown.

    Args:
        values: Oldest first; where there are more than columns, each is the mean of several.
        width: Columns.
        most: What the highest block is, where lines are to be compared.
        ascii_only: With ASCII.
    """
    levels = _PLAIN_LEVELS if ascii_only else _LEVELS
    top = len(levels) - 1
    shown = _pooled(values, width)
    if most is None:
        most = max((value for value in shown if value is not None), default=0.0)
    scale = top / most if most > 0 else 0.0
    return "".join(" " if v is None else levels[min(max(0, round(v * scale)), top)] for v in shown)


def _pooled(values: Sequence[float | None], width: int) -> list[float | None]:
    count = min(width, len(values))
    pooled: list[float | None] = []
    for n in range(count):
        part = values[n * len(values) // count : (n + 1) * len(values) // count]
        known = [value for value in part if value is not None]
        pooled.append(sum(known) / len(known) if known else None)
    return pooled
