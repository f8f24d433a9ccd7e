"""Which ramps are worth having: pooling, head, targets, by what they save at 1 % disagreement.

For each workload the frozen model runs once over its data; then every variant of the ramps is
trained on the same samples, the best set of at most three is chosen with its thresholds on others,
each ramp's own measured cost included, and tried on fresh ones. ``saved at 1 %`` is with thresholds
that spend exactly the budget on the fresh samples, so that variants are compared at one
disagreement; ``fresh disagreement`` is what the thresholds of the tuning samples do there.

    python benchmarks/ramp_styles.py [imdb] [cifar] [camera]

``imdb`` needs the demo's packages; ``cifar`` and ``camera`` need what ``examples/train_cifar.py``
and ``examples/train_camera.py`` leave in runs/, and are skipped without. Writes
results/ramp_styles.json, where workloads that were not asked for stay as they are.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import RESULTS, asked, machine, paired, write_result
from _demo import ROOT, RUN
from numpy.typing import NDArray

from apparate_jax.checkpoint import is_checkpoint, load_checkpoint
from apparate_jax.control import oracle_saving, tune_thresholds
from apparate_jax.control.thresholds import first_exits
from apparate_jax.core import Model
from apparate_jax.data import load_data
from apparate_jax.data.dataset import Circle, Dataset
from apparate_jax.graph import Program, trace
from apparate_jax.models import from_hf
from apparate_jax.ramps import TrainConfig
from apparate_jax.ramps.answer import answer_error, pack_answer
from apparate_jax.ramps.features import Features, Layout, collect_features
from apparate_jax.ramps.heads import Ramp, head_logits, pool
from apparate_jax.ramps.placement import place_by_validation
from apparate_jax.ramps.train import fit_ramps, head_kinds

SEEDS = (0, 1, 2)
LIMIT = 0.01
MAX_RAMPS = 3


class Variant(NamedTuple):
    """One way to make ramps.

    Attributes:
        kind: Pooling, ``"auto"`` for the model's own.
        style: Head style.
        soft: Towards the model's probabilities rather than its label.
        fed: Whether each active ramp also sees the logits of the active one before it.
    """

    kind: str = "auto"
    style: str = "linear"
    soft: bool = True
    fed: bool = False


@dataclass(frozen=True)
class Workload:
    """A model and its data: samples to train on, to tune on and to try on, in this order."""

    name: str
    model: Model
    program: Program
    data: Dataset
    train: int
    tune: int
    variants: dict[str, Variant]
    split: str = "random"


COMMON = {
    "linear, soft targets (default)": Variant(),
    "linear, hard targets": Variant(soft=False),
    "hidden layer of 32": Variant(style="hidden"),
    "hidden layer of 32, hard targets": Variant(style="hidden", soft=False),
    "DeeBERT's pooler": Variant(style="pooler"),
    "linear, previous ramp's logits fed forward": Variant(fed=True),
}
SEQUENCE = {
    "paper: first token, linear": Variant(kind="first_token"),
    "DeeBERT: first token, pooler": Variant(kind="first_token", style="pooler"),
}


def imdb() -> Workload:
    """MiniLM-L6 fine-tuned for sentiment, on IMDB reviews."""
    sys.path.insert(0, str(ROOT / "examples"))
    import imdb as reviews

    model = from_hf(ROOT / "checkpoints" / "minilm-l6-imdb")
    path = RUN / "ramp-styles.csv"
    reviews.write("ramps", path)
    stream = RUN / "ramp-styles-stream.csv"
    reviews.write("stream", stream, limit=4000)
    text = path.read_text(encoding="utf-8") + stream.read_text(encoding="utf-8").split("\n", 1)[1]
    path.write_text(text, encoding="utf-8")
    data = load_data(path, model)
    return Workload("imdb", model, traced(model), data, 3000, 2000, COMMON | SEQUENCE)


def cifar() -> Workload | None:
    """A ResNet-18 trained on CIFAR-10, on its test pictures."""
    found = _example("cifar")
    if found is None:
        return None
    model, data = found
    return Workload("cifar", model, traced(model), data, 2000, 1500, COMMON)


def camera() -> Workload | None:
    """A two-class head (somebody in view or not) on a backbone, on a fixed camera's frames."""
    found = _example("camera")
    if found is None:
        return None
    model, data = found
    third = len(data) // 3
    return Workload("camera", model, traced(model), data, third, third, COMMON, split="last")


def _example(name: str) -> tuple[Model, Dataset] | None:
    """The model and the stream that ``examples/train_NAME.py`` left in runs/NAME."""
    folder = ROOT / "runs" / name
    if not is_checkpoint(folder / "checkpoint"):
        return None
    model = load_checkpoint(folder / "checkpoint").model
    return model, load_data(next(folder.glob("stream.*")), model)


def traced(model: Model) -> Program:
    """The program of a model, at the batch size of its features."""
    return trace(model.apply, model.params, *model.example_inputs(8))


WORKLOADS: dict[str, Callable[[], Workload | None]] = {
    "imdb": imdb,
    "cifar": cifar,
    "camera": camera,
}


class Answers(NamedTuple):
    """Errors f32[samples, ramps] and agreement bool[samples, ramps]."""

    errors: NDArray[np.float32]
    agrees: NDArray[np.bool_]

    def of(self, rows: slice, columns: list[int]) -> "Answers":
        """Some samples and ramps."""
        return Answers(self.errors[rows][:, columns], self.agrees[rows][:, columns])


def gather(work: Workload) -> dict[str, Features]:
    """Features of every pooling that a variant asks for."""
    kinds = sorted({variant.kind for variant in work.variants.values()})
    return {
        kind: collected(f"{work.name}, pooling {kind}", work.program, work.model, work.data, kind)
        for kind in kinds
    }


def collected(
    what: str, program: Program, model: Model, data: Dataset, kind: str = "auto"
) -> Features:
    """Features of every site on all of the data; ``what`` names it while that is under way."""
    with collect_features(
        program,
        model,
        Circle(data, 0, len(data)),
        head_kinds(program.sites, model, kind),
        batch_size=8,
        max_bytes=2**33,
        progress=_line(what, []),
    ) as features:
        return Features(features.layout, features.table.copy())


def _line(what: str, seen: list[str]) -> Callable[[int, int, str], None]:
    def step(done: int, total: int, _: str) -> None:
        tenth = f"{what}: {10 * done // total}0 %"
        if tenth not in seen:
            seen.append(tenth)
            print(tenth, file=sys.stderr, flush=True)

    return step


def head_ms(work: Workload, ramp: Ramp) -> float:
    """What a ramp adds to one input: its program less one that only copies, paired, median."""
    site = work.program.rebatch(1).sites[ramp.site]
    value = jnp.zeros(site.shape, site.dtype)
    mask = None
    if work.model.mask is not None:
        mask = jnp.ones((1, work.model.inputs[0].shape[0]), jnp.int32)

    def head(params: Any, value: Any, mask: Any) -> Any:
        return pack_answer(head_logits(params, pool(ramp.kind, value, mask), ramp.style))

    def copy(params: Any, value: Any, mask: Any) -> Any:
        del params, mask
        return value.reshape(1, -1)[:, : 2 + work.program.num_classes] + 1

    fns = {name: jax.jit(fn) for name, fn in (("head", head), ("copy", copy))}
    times = paired(
        {
            name: lambda fn=fn: fn(ramp.params, value, mask).block_until_ready()
            for name, fn in fns.items()
        },
        60,
    )
    return max(0.0, float(np.median(times["head"] - times["copy"])) * 1e3)


def model_ms(work: Workload) -> float:
    """Time of the original model for one input, median."""
    inputs = jax.device_put(work.model.example_inputs(1))
    params = jax.device_put(work.model.params)
    run = jax.jit(work.model.apply)
    times = paired({"model": lambda: run(params, *inputs).block_until_ready()}, 30)
    return float(np.median(times["model"])) * 1e3


def trained(work: Workload, features: Features, variant: Variant, seed: int) -> tuple[Ramp, ...]:
    """Ramps of a variant, on the training samples."""
    config = TrainConfig(
        data_frac=1.0,
        style=variant.style,
        soft_targets=variant.soft,
        seed=seed,
        split=work.split,  # type: ignore[arg-type]
    )
    part = Features(features.layout, features.table[: work.train])
    return fit_ramps(part, work.program.sites, config).ramps


def answers_of(ramps: tuple[Ramp, ...], features: Features) -> Answers:
    """What ramps say about every sample."""
    labels = features.logits.argmax(axis=1)
    errors, agrees = [], []
    for ramp, pooled in zip(ramps, features.pooled, strict=True):
        logits = head_logits(ramp.params, pooled, ramp.style)
        errors.append(np.asarray(answer_error(logits)))
        agrees.append(np.asarray(logits).argmax(axis=1) == labels)
    return Answers(np.stack(errors, axis=1), np.stack(agrees, axis=1))


def fed_forward(
    work: Workload, features: Features, ramps: tuple[Ramp, ...], chosen: list[int], seed: int
) -> Answers:
    """Answers of the chosen ramps, each trained again with the one before it as a further input."""
    answers = answers_of(ramps, features)
    before: NDArray[np.float32] | None = None
    for column in chosen:
        pooled = features.pooled[column]
        if before is not None:
            pooled = np.concatenate([pooled, before], axis=1)
        layout = Layout((column,), ("identity",), (pooled.shape[1],), features.layout.classes)
        own = Features(layout, np.concatenate([pooled, features.logits], axis=1))
        (ramp,) = trained(work, own, Variant(), seed)
        said = answers_of((ramp,), own)
        answers.errors[:, column], answers.agrees[:, column] = said.errors[:, 0], said.agrees[:, 0]
        before = np.asarray(head_logits(ramp.params, pooled, ramp.style))
    return answers


Prices = dict[tuple[int, str, str], float]
"""What a ramp costs in ms, by site, pooling and style: its training does not matter."""


def priced(work: Workload, ramps: tuple[Ramp, ...], prices: Prices) -> NDArray[np.float64]:
    """Cost of each ramp in ms, measured once for all that compute the same."""
    for ramp in ramps:
        if (ramp.site, ramp.kind, ramp.style) not in prices:
            prices[ramp.site, ramp.kind, ramp.style] = head_ms(work, ramp)
    return np.asarray([prices[ramp.site, ramp.kind, ramp.style] for ramp in ramps])


def tried(
    work: Workload,
    features: Features,
    variant: Variant,
    seed: int,
    total_ms: float,
    prices: Prices,
) -> dict[str, Any]:
    """Train a variant, choose its ramps and try them."""
    ramps = trained(work, features, variant, seed)
    costs = priced(work, ramps, prices) / total_ms
    answers = answers_of(ramps, features)
    tune, fresh = slice(work.train, work.train + work.tune), slice(work.train + work.tune, None)
    depths = np.asarray([work.program.sites[r.site].depth for r in ramps])
    savings = 1.0 - depths
    useful = [i for i, depth in enumerate(depths) if depth <= 0.97]
    there = answers.of(tune, useful)
    placed = place_by_validation(
        there.errors,
        there.agrees,
        savings[useful],
        tune_thresholds,
        max_ramps=MAX_RAMPS,
        max_disagreement=LIMIT,
        costs=costs[useful],
    )
    chosen = [useful[i] for i in placed.ramps]
    if variant.fed:
        answers = fed_forward(work, features, ramps, chosen, seed)
    return {
        "sites": [work.program.sites[ramps[i].site].name for i in chosen],
        **kept_and_saved(
            answers.of(tune, chosen), answers.of(fresh, chosen), savings[chosen], costs[chosen]
        ),
        "head_ms": total_ms * float(costs[useful].mean()),
        "agreement_mean": float(answers.agrees[fresh].mean()),
        "oracle_mean_saved_frac": oracle_saving(answers.agrees[fresh], savings),
    }


def kept_and_saved(
    before: Answers, here: Answers, gains: NDArray[np.float64], costs: NDArray[np.float64]
) -> dict[str, float]:
    """What chosen ramps do on fresh samples, their cost included; nothing if none was chosen.

    Args:
        before: Answers to the tuning samples.
        here: To the fresh ones.
        gains: Share of the model's time that an exit at each ramp saves.
        costs: Share of it that each ramp takes.
    """
    if not len(gains):
        return {"mean_saved_frac": 0.0, "median_saved_frac": 0.0, "fresh_disagreement": 0.0}
    carried = tune_thresholds(before.errors, before.agrees, gains, LIMIT).thresholds
    exact = tune_thresholds(here.errors, here.agrees, gains, LIMIT).thresholds
    spent = np.append(np.cumsum(costs), costs.sum())
    exits = first_exits(here.errors, exact)
    saved = np.append(gains, 0.0)[exits] - spent[exits]
    left = first_exits(here.errors, carried)
    right = np.append(here.agrees, np.ones((len(left), 1), bool), axis=1)
    return {
        "mean_saved_frac": float(saved.mean()),
        "median_saved_frac": float(np.median(saved)),
        "fresh_disagreement": float(1.0 - right[np.arange(len(left)), left].mean()),
    }


def study(work: Workload) -> dict[str, Any]:
    """Every variant of a workload, the mean over the seeds."""
    features = gather(work)
    total_ms = model_ms(work)
    prices: Prices = {}
    rows = {}
    for name, variant in work.variants.items():
        own = features[variant.kind]
        runs = [tried(work, own, variant, seed, total_ms, prices) for seed in SEEDS]
        row = {
            key: round(float(np.mean([run[key] for run in runs])), 4)
            for key in runs[0]
            if key != "sites"
        }
        row["mean_saved_frac_by_seed"] = [round(run["mean_saved_frac"], 4) for run in runs]
        row["sites"] = [run["sites"] for run in runs]
        print(
            f"{work.name:7} {name:46} saved {row['mean_saved_frac']:6.1%} "
            f"(median {row['median_saved_frac']:6.1%})  head {row['head_ms']:.3f} ms",
            flush=True,
        )
        rows[name] = row
    counts = {"train": work.train, "tune": work.tune, "all": len(work.data)}
    return {"samples": counts, "model_ms": round(total_ms, 3), "variants": rows}


def main() -> None:
    """Study the workloads that were asked for, or all."""
    RUN.mkdir(parents=True, exist_ok=True)
    for name in asked(WORKLOADS, "workloads"):
        work = WORKLOADS[name]()
        if work is None:
            print(f"{name}: skipped, run examples/train_{name}.py first")
            continue
        here = machine()
        keep(name, {"machine": here, **study(work)})


def keep(name: str, found: dict[str, Any]) -> None:
    """Put a workload's figures beside those that the result file holds."""
    path = RESULTS / "ramp_styles.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    others = {other: before[other] for other in WORKLOADS if other in before}
    settings = {"limit": LIMIT, "max_ramps": MAX_RAMPS, "seeds": list(SEEDS)}
    write_result("ramp_styles", {**settings, **others, name: found})


if __name__ == "__main__":
    main()
