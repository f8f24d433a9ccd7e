"""How much of the error budget tuning may spend: what the controller's settings keep and save.

The controller drives a synthetic stream in closed loop, one batch late. Three ramps see the
original's margin through noise, so that they agree with it on 85, 90 and 96 % of the inputs, and a
hundredth of the inputs is answered wrong with confidence. Writes results/budget.json.
"""

from typing import Any

import jax.scipy.special
import numpy as np
from _common import write_result
from numpy.typing import NDArray

from apparate_jax.control.controller import ControlConfig, Observation, make_controller
from apparate_jax.control.thresholds import first_exits, oracle_saving

SITES = (3, 6, 9)
SAVINGS_MS = (6.5, 4.0, 1.7)
TOTAL_MS = 9.0
NOISE = (0.5, 0.3, 0.12)
ANSWERS = 10_000
BATCH = 4
SEEDS = 6
SPAN = 512
SETTINGS = {
    "default": ControlConfig(),
    "a quarter of the budget": ControlConfig(budget_frac=0.25),
    "three quarters": ControlConfig(budget_frac=0.75),
    "all of it": ControlConfig(budget_frac=1.0),
    "all of it, greedy": ControlConfig(budget_frac=1.0, method="greedy"),
    "window of 512": ControlConfig(window=512),
    "window of 512, all of it": ControlConfig(window=512, budget_frac=1.0),
    "no pause after a stop": ControlConfig(cooldown=1),
    "a long pause": ControlConfig(cooldown=128),
    "first tuning at 128": ControlConfig(min_samples=128),
    "first tuning at 512": ControlConfig(min_samples=512),
}


def stream(seed: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Errors and agreement of every answer at every ramp: f32 and bool [ANSWERS, 3]."""
    rng = np.random.default_rng(seed)
    margin, common = rng.normal(size=(2, ANSWERS))
    errors, agrees = [], []
    sure_but_wrong = rng.random(ANSWERS) < 0.01
    until = rng.integers(1, len(SITES) + 1, ANSWERS)
    for ramp, noise in enumerate(NOISE):
        own = rng.normal(size=ANSWERS)
        seen = margin + noise * (np.sqrt(0.6) * common + np.sqrt(0.4) * own)
        distance = np.abs(seen) / (noise * np.sqrt(1 + noise**2))
        errors.append(np.asarray(jax.scipy.special.ndtr(-distance)))
        flipped = sure_but_wrong & (ramp < until) & (rng.random(ANSWERS) < 0.7)
        agrees.append(((seen > 0) == (margin > 0)) ^ flipped)
    return np.stack(errors, axis=1).astype(np.float32), np.stack(agrees, axis=1)


def play(
    config: ControlConfig, errors: NDArray[np.float32], agrees: NDArray[np.bool_]
) -> dict[str, float]:
    """Serve the stream; what was saved and how often an answer was not the original's."""
    controller = make_controller(config, SITES, SAVINGS_MS)
    state = controller.init()
    thresholds, late = state.thresholds, None
    exits = np.empty(len(errors), np.int32)
    stops = 0
    for start in range(0, len(errors), BATCH):
        rows = slice(start, start + BATCH)
        exits[rows] = first_exits(errors[rows], thresholds)
        if late is not None:
            plan, state, info = controller.update(state, late)
            thresholds = plan.thresholds
            stops += bool(info.stopped)
        late = Observation(SITES, errors[rows], agrees[rows], exits[rows])
    right = np.append(agrees, np.ones((len(agrees), 1), bool), axis=1)
    wrong = ~right[np.arange(len(exits)), exits]
    spans = np.convolve(wrong, np.ones(SPAN), "valid")[:: SPAN // 8] / SPAN
    return {
        "saved_frac": np.append(SAVINGS_MS, 0.0)[exits].mean() / TOTAL_MS,
        "disagreement": wrong.mean(),
        "disagreement_first_2000": wrong[:2000].mean(),
        "spans_above_frac": (spans > config.max_disagreement).mean(),
        "stops": float(stops),
    }


def main() -> None:
    """Play every setting on the same streams."""
    streams = [stream(seed) for seed in range(SEEDS)]
    result: dict[str, Any] = {}
    for name, config in SETTINGS.items():
        runs = [play(config, *one) for one in streams]
        row = {key: round(float(np.mean([run[key] for run in runs])), 4) for key in runs[0]}
        row["disagreement_worst"] = round(max(float(run["disagreement"]) for run in runs), 4)
        result[name] = row
        print(
            f"{name:25} saved {row['saved_frac']:.1%}  disagreement {row['disagreement']:.2%} "
            f"(worst {row['disagreement_worst']:.2%})  spans of {SPAN} above "
            f"{row['spans_above_frac']:.0%}  stops {row['stops']:.1f}"
        )
    oracle = float(np.mean([oracle_saving(agrees, SAVINGS_MS) for _, agrees in streams]))
    setup = {"answers": ANSWERS, "seeds": SEEDS, "span": SPAN, "accuracy": 0.99}
    payload = {"setup": setup, "oracle_saved_frac": round(oracle / TOTAL_MS, 4), "settings": result}
    write_result("budget", payload)


if __name__ == "__main__":
    main()
