"""Models with minutes behind them, on a clock of their own: what screens and pages are shown."""

from dataclasses import dataclass

import numpy as np

from apparate_jax.control.interface import Info
from apparate_jax.control.thresholds import Tuning
from apparate_jax.core import BatchRecord, ExitPlan, Profile, ShapeProfile
from apparate_jax.serve.telemetry import Statistics

SITES = tuple(f"layer_{n}/{part}" for n in range(3) for part in ("attention", "feed_forward"))
RAMPS = (1, 3, 4)
LEFT_MS = np.asarray([4.0, 7.5, 9.0, 12.2])
"""From dispatch to answer, by exit."""
SHAPES = tuple(
    ShapeProfile(b, 12.0, 12.5, (3.0, 6.5, 8.0), (2.0, 4.0, 5.0, 7.0, 8.5, 10.0), (0.2,) * 6, 2.0)
    for b in (1, 4, 8)
)
START_S = 1_750_000_000.0
BATCH = 4


@dataclass
class Engine:
    plan: ExitPlan
    waiting: int = 0
    ready: bool = True


class Lively:
    """A model that answers a simulated stream; ``now_s`` is its clock."""

    def __init__(self, seed=0, started_s=START_S):
        self.now_s = 0.0
        self.rng = np.random.default_rng(seed)
        self.engine = Engine(ExitPlan(RAMPS, (0.3, 0.3, 0.3)))
        self.statistics = Statistics(
            SITES,
            Profile("test", "0", RAMPS, SHAPES),
            max_disagreement=0.01,
            wall=lambda: started_s + self.now_s,
        )
        self.statistics.watch(self.engine)

    def run(self, seconds, batches_per_s=8):
        """Answer for a while, with a tuning every 20 s and a ramp that is stopped once."""
        for n in range(int(seconds * batches_per_s)):
            self.now_s += 1 / batches_per_s
            self.engine.waiting = int(self.rng.poisson(2 + 2 * np.sin(self.now_s / 40) ** 2))
            self.statistics.observe(self._record())
            for _ in range(BATCH):
                self.statistics.begun()
                self.statistics.answered(0.02, 0.0005, 0.0002)
            if n % (20 * batches_per_s) == 0:
                self._tune()
        return self

    def stop_a_ramp(self):
        """What control does about one that is no longer worth its cost."""
        sites = self.engine.plan.sites
        self.engine.plan = ExitPlan(sites[:-1], self.engine.plan.thresholds[:-1])
        text = f"ramp at site {sites[-1]} off: utility -0.4 ms"
        self.statistics.decided(self.engine.plan, Info(None, (len(sites) - 1,), (text,)))

    def _tune(self):
        ramps = self.engine.plan.sites
        thresholds = tuple(np.round(self.rng.uniform(0.15, 0.45, len(ramps)), 3).tolist())
        self.engine.plan = ExitPlan(ramps, thresholds)
        tuning = Tuning(np.asarray(thresholds, np.float32), 2.0, 0.008)
        self.statistics.decided(self.engine.plan, Info(tuning, (), ("tuned on 512 samples",), 0.01))

    def _record(self):
        ramps = self.engine.plan.sites
        n = len(ramps)
        shares = (0.3, 0.25, 0.15)[:n]
        exits = self.rng.choice(n + 1, BATCH, p=(*shares, 1.0 - sum(shares)))
        right = self.rng.random((BATCH, n)) > 0.008
        dispatched = self.now_s - 0.015
        waited = self.rng.exponential(0.002, BATCH)
        noise = self.rng.gamma(2.0, 0.0006, BATCH)
        left = LEFT_MS[np.where(exits < n, exits, 3)] / 1e3 + noise
        return BatchRecord(
            sites=ramps,
            shape=BATCH,
            arrived_s=dispatched - waited,
            dispatched_s=dispatched,
            released_s=dispatched + left,
            finished_s=self.now_s,
            exits=exits.astype(np.int32),
            errors=np.zeros((BATCH, n), np.float32),
            predictions=right.astype(np.int32),
            final_predictions=np.ones(BATCH, np.int32),
        )


class Hall:
    """Several models by name on one clock: what a server shows."""

    def __init__(self, *names, seconds=600, started_s=START_S):
        self.models = {name: Lively(seed, started_s) for seed, name in enumerate(names)}
        for n, model in enumerate(self.models.values()):
            model.run(seconds * 0.7, 8 - 3 * n)
            model.stop_a_ramp()
            model.run(seconds * 0.3, 8 - 3 * n)

    def statistics(self):
        return {(name, "1"): model.statistics for name, model in self.models.items()}

    def now_s(self):
        return max(model.now_s for model in self.models.values())
