"""The paper's figures as data: what was reached, on what, and where the paper says so.

From Apparate (SOSP 2024, doi 10.1145/3694715.3695963, arXiv 2312.05385). Shares are in per cent.
``read_off`` marks values that the paper does not print and that were read off a figure: they are
good to about a point. ``whose`` names the model where the paper gives a figure for one only.
"""

from typing import Any, NamedTuple

TEXT, IMAGES = "text", "images"
RESULTS = "abstract and overall results"
EXISTING = "table of existing strategies"
TUNING = "figure of tuning once, uniformly and continually"
SENSITIVITY = "sensitivity"
MICRO = "microbenchmarks"


class Published(NamedTuple):
    """A figure of the paper.

    Attributes:
        key: What findings are called by.
        what: For people, as the subject of a sentence.
        low: Smallest value over what the paper tried; the value where there is one.
        high: Largest.
        unit: ``"%"``, ``"ms"`` or ``"x"``.
        better: ``"higher"``, ``"lower"`` or ``"neither"``.
        where: In the paper.
        kind: Of workloads, None for both.
        whose: Model or data, where it is not all of them.
        read_off: Whether it was read off a figure.
    """

    key: str
    what: str
    low: float
    high: float
    unit: str = "%"
    better: str = "higher"
    where: str = RESULTS
    kind: str | None = None
    whose: str = ""
    read_off: bool = False

    @property
    def shown(self) -> str:
        """The figure with its unit, as people read it."""
        values = [f"{self.low:g}"] + ([f"{self.high:g}"] if self.high != self.low else [])
        text = " to ".join(values)
        text = f"x {text}" if self.unit == "x" else f"{text} {self.unit}"
        about = ([self.whose] if self.whose else []) + (
            ["read off a figure"] if self.read_off else []
        )
        return f"{text} ({', '.join(about)})" if about else text


def _both(key: str, what: str, images: Any, text: Any, **more: Any) -> list[Published]:
    """The same figure of both kinds: a value each, or a pair, or a triple with whose it is."""
    return [
        _one(key, what, value, kind=kind, **more)
        for kind, value in ((IMAGES, images), (TEXT, text))
        if value is not None
    ]


def _one(key: str, what: str, value: Any, **more: Any) -> Published:
    low, high, *whose = value if isinstance(value, tuple) else (value, value)
    return Published(key, what, low, high, **({"whose": whose[0]} if whose else {}), **more)


def _settings(
    study: str, what: str, values: dict[str, tuple[float, float]], text: str
) -> list[Published]:
    """A sensitivity study: median saved at each setting, for ResNet50 and a model of text."""
    made = []
    for setting, (images, words) in values.items():
        named = f"median latency saved at {what} {setting}"
        both = (images, images, "ResNet50"), (words, words, text)
        made += _both(
            f"{study} {setting}", named, *both, where=SENSITIVITY, read_off=study != "budget"
        )
    return made


_TABLE: dict[str, tuple[str, Any, Any, Any]] = {
    # ResNet50 and BERT-base: agreement, median saved, p95 saved
    "branchynet": (IMAGES, (85.8, 99.8), (-11.0, 88.3), (-11.0, -11.0)),
    "branchynet+": (IMAGES, (76.1, 99.9), (-11.0, 88.3), (-11.0, -11.0)),
    "branchynet-opt": (IMAGES, (99.0, 99.7), (-11.0, 74.5), (-11.0, -11.0)),
    "deebert": (TEXT, (91.7, 97.1), (13.2, 36.1), (-1.3, 6.4)),
    "deebert+": (TEXT, (82.2, 90.3), (31.7, 36.1), (5.9, 6.4)),
    "deebert-opt": (TEXT, (99.0, 99.0), (9.8, 36.1), (-1.4, 6.4)),
}


def _existing() -> list[Published]:
    made = []
    for system, (kind, *values) in _TABLE.items():
        whats = ("agreement", "median latency saved", "p95 latency saved")
        for what, (low, high) in zip(whats, values, strict=True):
            key = f"{system} {what.split()[0]}"
            whose = "ResNet50" if kind == IMAGES else "BERT-base"
            made.append(
                Published(
                    key, f"{system}: {what}", low, high, "%", "neither", EXISTING, kind, whose
                )
            )
    return made


PUBLISHED: tuple[Published, ...] = (
    *_both("p50 saved", "median latency saved", (40.5, 91.5), (10.0, 24.2)),
    *_both("p25 saved", "25th percentile of latency saved", (70.2, 94.2), (16.0, 37.3)),
    *_both(
        "p95 saved",
        "95th percentile of latency saved",
        (-1.6, 0.0, "ResNet50"),
        (2.1, 3.0, "BERT-base"),
        where=EXISTING,
    ),
    *_both(
        "agreement",
        "agreement with the original model",
        (99.0, 99.2, "ResNet50"),
        (99.1, 99.3, "BERT-base"),
        where=EXISTING,
    ),
    _one("throughput", "throughput over the original's", 1.0, unit="x", where="abstract"),
    *_both("of optimal", "share of the optimal median saving", (79.5, 100.0), (21.5, 34.6)),
    _one("gap to past", "gap to an optimum tuned on past batches", (4.9, 17.2), better="lower"),
    *_both("continual agreement", "agreement under continual tuning", 98.6, 98.3, where=TUNING),
    *_both("continual saved", "median saved under continual tuning", 43.5, 26.6, where=TUNING),
    *_both(
        "once agreement", "agreement, tuned once", 84.5, 86.8, where=TUNING, better="neither"
    ),
    *_both("once saved", "median saved, tuned once", 74.3, 73.6, where=TUNING, better="neither"),
    *_both(
        "uniform agreement",
        "agreement, tuned on a uniform sample",
        90.3,
        87.7,
        where=TUNING,
        better="neither",
    ),
    *_both(
        "uniform saved",
        "median saved, tuned on a uniform sample",
        64.2,
        69.4,
        where=TUNING,
        better="neither",
    ),
    *_existing(),
    *_settings(
        "accuracy",
        "an allowed loss of",
        {"1.0%": (47.2, 18.5), "2.0%": (56.3, 19.9), "5.0%": (61.2, 30.9)},
        "GPT2-medium",
    ),
    *_settings(
        "budget",
        "a ramp budget of",
        {"2%": (48.9, 18.5), "5%": (49.6, 22.2), "10%": (50.4, 24.9)},
        "GPT2-medium",
    ),
    *_settings(
        "slo", "an SLO", {"x1": (83.2, 10.7), "x2": (44.2, 6.8), "x4": (30.7, 5.3)}, "BERT-base"
    ),
    _one(
        "no adjustment",
        "fall of the median saving without ramp adjustment",
        (20.8, 33.4),
        better="neither",
        where=MICRO,
    ),
    _one(
        "heavy ramps",
        "fall of the median saving with DeeBERT's ramps",
        4.0,
        better="neither",
        where=EXISTING,
        kind=TEXT,
    ),
    _one("two-layer p50", "median below a two-layer system's", (5.7, 66.6), where=EXISTING),
    _one("two-layer p95", "p95 below a two-layer system's", (20.9, 42.0), where=EXISTING),
    _one("search", "one threshold search", 11.9, unit="ms", better="lower", where=MICRO),
    _one("grid", "one grid search", 3000.0, unit="ms", better="neither", where=MICRO),
    _one(
        "search loss",
        "saving that the threshold search leaves to the best",
        (0.0, 3.8),
        better="lower",
        where=MICRO,
    ),
    _one("adjustment", "one round of ramp adjustment", 0.5, unit="ms", better="lower", where=MICRO),
    _one(
        "message", "a message between device and host", 0.5, unit="ms", better="lower", where=MICRO
    ),
    _one(
        "ramp latency",
        "latency that ramps add in the worst case",
        (0.0, 2.0, "the budget"),
        better="lower",
        where="set-up",
    ),
    _one(
        "ramp parameters",
        "parameters of a ramp as a share of the model's",
        (0.01, 3.5),
        better="lower",
        where="preparation of models",
    ),
    Published(
        "clockwork p50", "median on Clockwork", 20.2, 689.2, "ms", "lower", "platforms", None,
        "ResNet50 and GPT2-medium",
    ),
    Published(
        "tf-serving p50", "median on TF-Serving", 24.5, 709.3, "ms", "lower", "platforms", None,
        "ResNet50 and GPT2-medium",
    ),
    Published("t5", "median time per token saved", 70.4, 77.9, whose="T5"),
    Published("llama2", "median time per token saved", 22.6, 37.4, whose="Llama2"),
)  # fmt: skip
"""Every figure that ours can be set beside, and those for which there is no counterpart here."""

MEDIANS_BY_MODEL = {
    "ResNet18": (80.1, 80.1),
    "ResNet50": (83.2, 88.6),
    "ResNet101": (91.5, 93.9),
    "VGG11": (70.2, 74.0),
    "VGG13": (71.5, 72.2),
    "VGG16": (75.4, 76.1),
}
"""Median saved over the videos by Apparate and by the optimum, in per cent, read off a figure."""


KEYS = frozenset(one.key for one in PUBLISHED)


def published(key: str, kind: str | None) -> Published | None:
    """The paper's figure for workloads of a kind; None if there is none for that kind."""
    found = [one for one in PUBLISHED if one.key == key]
    if not found:
        raise KeyError(f"the paper has no figure {key!r}")
    return next((one for one in found if one.kind in (kind, None)), None)


def of_any_kind(key: str) -> Published:
    """The paper's figure for whatever kind."""
    return next(one for one in PUBLISHED if one.key == key)
