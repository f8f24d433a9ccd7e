"""Compiled programs of a model: the stages between active ramps, at every batch shape.

All outputs of one executable become ready together, at its end. So each stage between two active
ramps is a program of its own, with the ramp's head fused into it, and a **route** is the sequence
of programs that takes a batch from its inputs to the original model's answer.

Two kinds of stages exist. *Atomic* stages (between neighbouring sites, heads apart) are compiled at
warm-up, so any set of active ramps runs at once. *Merged* stages of the set in use are compiled in
the background (:mod:`apparate_jax.serve.compile_process`) and swapped in when they are ready:
serving never waits for a compiler, nor shares its cores with one. Equal layers lower to the same
program, which is compiled once and called with each layer's parameters.

Parameters are arguments, bound once per program; those of ramps are looked up at each call, so that
they can be replaced while serving.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax

from apparate_jax.core import Model
from apparate_jax.errors import ConfigError
from apparate_jax.graph import Program, Stage
from apparate_jax.ramps.answer import CRITERIA, pack_answer
from apparate_jax.ramps.heads import PARAM_NAMES, Ramp, head_logits, pool
from apparate_jax.serve.compile_process import CompileError, CompileProcess, is_useful
from apparate_jax.serve.executables import Executables
from apparate_jax.serve.route import Route, Segment

logger = logging.getLogger(__name__)

KEPT = 8
"""Sets of active ramps whose merged programs are kept."""
REST_S = 0.1
"""Pause after each program that is compiled in the background: tracing it holds Python's lock."""

Progress = Callable[[int, int, str], None]
"""``progress(done, total, what)``, called after each compiled program."""


class Programs:
    """Compiles and keeps the programs of one model with its ramps. Thread-safe."""

    def __init__(
        self,
        program: Program,
        model: Model,
        ramps: Iterable[Ramp] = (),
        batch_sizes: Sequence[int] = (1, 2, 4, 8),
        criterion: str = "error",
        *,
        executables: Executables | None = None,
        gently: bool = False,
        device: jax.Device | None = None,
    ) -> None:
        """Trace the model at every batch shape; nothing is compiled yet.

        Args:
            program: The traced model.
            model: Its description; names the mask that ramps pool with.
            ramps: Trained ramps.
            batch_sizes: Shapes to serve.
            criterion: What answers leave by: ``"error"`` or ``"entropy"``.
            executables: Of another model, perhaps of the same architecture; new ones join them.
            gently: Another model serves meanwhile: let a child compile.
            device: Where the model runs; JAX's default if None.

        Raises:
            ConfigError: If the batch sizes are not positive and distinct, or there is no such
                criterion.
            GraphError: If the model does not trace at one of them.
        """
        if not batch_sizes or min(batch_sizes) < 1 or len(set(batch_sizes)) != len(batch_sizes):
            raise ConfigError(
                f"batch sizes are {list(batch_sizes)}, expected distinct numbers of at least 1"
            )
        if criterion not in CRITERIA:
            raise ConfigError(f"criterion is {criterion!r}, expected one of {list(CRITERIA)}")
        self.model = model
        self._criterion = criterion
        self.batch_sizes = tuple(sorted(batch_sizes))
        self.ramps: Mapping[int, Ramp] = {ramp.site: ramp for ramp in ramps}
        self.sites = program.sites
        self.num_classes = program.num_classes
        self._param_names = {
            site: [name for name in PARAM_NAMES if name in ramp.params]
            for site, ramp in self.ramps.items()
        }
        self.ramp_params: dict[int, tuple[jax.Array, ...]] = {
            site: tuple(
                jax.device_put(ramp.params[name], device) for name in self._param_names[site]
            )
            for site, ramp in self.ramps.items()
        }
        self._programs = {batch: program.rebatch(batch) for batch in self.batch_sizes}
        self._options: dict[str, str | bool] | None = {**program.compiler_options} or None
        names = [spec.name for spec in model.inputs]
        self._mask = names.index(model.mask) if model.mask is not None else None
        self.executables = executables or Executables()
        self.device = device
        self._gently = gently and is_useful()
        self._atomic: dict[int, tuple[tuple[Segment, ...], Mapping[int, Segment]]] = {}
        self._merged: dict[tuple[tuple[int, ...], int], Route] = {}
        self._lock = threading.RLock()
        self._background = ThreadPoolExecutor(1, thread_name_prefix="apparate-compile")
        self._child: CompileProcess | None = None
        self._lately: list[tuple[int, ...]] = []  # sets that were asked for, the latest last
        self._closed = False

    @property
    def num_compiled(self) -> int:
        """How many different programs there are."""
        return len(self.executables)

    def warm_atomic(self, progress: Progress | None = None) -> None:
        """Compile and run once every atomic stage and head at every batch shape."""
        stops = (*range(len(self.sites)), None)
        total = len(self.batch_sizes) * (len(stops) + len(self.ramps))
        done = itertools.count(1)

        def tell(what: str) -> None:
            if progress is not None:
                progress(next(done), total, what)

        with self._compiler(self._gently) as child:
            for batch in self.batch_sizes:
                segments, heads = [], {}
                for start, stop in itertools.pairwise((None, *stops)):
                    segments.append(self._segment(batch, start, stop, ramp=None, child=child))
                    tell(f"batch {batch}, stage {len(segments)}")
                for site in self.ramps:
                    heads[site] = self._head(batch, site, child)
                    tell(f"batch {batch}, ramp {self.sites[site].name}")
                self._atomic[batch] = (tuple(segments), heads)
                self._run_once(self.atomic_route(tuple(self.ramps), batch))
                self._run_once(self.shadow_route((), batch))

    def warm_merged(self, sites: Sequence[int], progress: Progress | None = None) -> None:
        """Compile and run once the merged stages of a set of sites at every batch shape."""
        chosen = self._checked(sites)
        self._lately.append(chosen)
        with self._compiler(self._gently) as child:
            for done, batch in enumerate(self.batch_sizes, 1):
                if (chosen, batch) not in self._merged:
                    segments = tuple(self._merged_segments(chosen, batch, child))
                    route = Route(chosen, batch, True, segments)
                    self._run_once(route)
                    self._merged[chosen, batch] = route
                if progress is not None:
                    what = f"batch {batch}, {len(chosen) + 1} stages"
                    progress(done, len(self.batch_sizes), what)

    def prepare(
        self, sites: Sequence[int], busy: Callable[[], bool] = lambda: False
    ) -> "Future[None]":
        """Compile the merged stages of ``sites`` in the background; a later call takes its place.

        The programs of the last :data:`KEPT` sets are kept.

        Args:
            sites: Ascending sites with a ramp.
            busy: Whether compilation has to wait; asked before each program.
        """
        chosen = self._checked(sites)
        with self._lock:
            self._lately = [s for s in self._lately if s != chosen] + [chosen]
        compiled = self._background.submit(self._merge_in_background, chosen, busy)
        compiled.add_done_callback(_log_failure)
        return compiled

    def route(self, sites: tuple[int, ...], batch: int) -> Route:
        """The programs to run now: merged where they are ready, else atomic.

        Raises:
            ConfigError: If neither was warmed, or a site has no trained ramp.
        """
        merged = self._merged.get((sites, batch))
        return merged if merged is not None else self.atomic_route(self._checked(sites), batch)

    def shadow_route(self, sites: tuple[int, ...], batch: int) -> Route:
        """Atomic stages with the active ramps, then the heads of all others."""
        route = self.atomic_route(self._checked(sites), batch)
        heads = self._atomic[batch][1]
        others = tuple((site, heads[site]) for site in sorted(self.ramps) if site not in sites)
        return replace(route, later=others)

    def finer(self, route: Route) -> Route:
        """The same ramps on atomic stages, where these were warmed; else the route itself."""
        return self.atomic_route(route.sites, route.batch) if route.batch in self._atomic else route

    def atomic_segments(self, batch: int) -> tuple[Segment, ...]:
        """Every atomic stage, each followed by the head of its site's ramp."""
        return self.atomic_route(tuple(sorted(self.ramps)), batch).segments

    def close(self) -> None:
        """End the background compiler, whatever it is at."""
        with self._lock:
            self._closed = True
            if self._child is not None:
                self._child.stop()
        self._background.shutdown(wait=True, cancel_futures=True)

    def example_inputs(self, batch: int) -> list[Any]:
        """Inputs of the right shapes, for warming and measuring."""
        return list(self.model.example_inputs(batch))

    def _checked(self, sites: Sequence[int]) -> tuple[int, ...]:
        chosen = tuple(int(s) for s in sites)
        untrained = [s for s in chosen if s not in self.ramps]
        if untrained or list(chosen) != sorted(set(chosen)):
            raise ConfigError(
                f"active sites {list(chosen)}: expected ascending sites with a trained ramp, "
                f"which are {sorted(self.ramps)}"
            )
        return chosen

    def atomic_route(self, sites: tuple[int, ...], batch: int) -> Route:
        """The programs between neighbouring sites, and the heads of these ones.

        Raises:
            ConfigError: They were not warmed.
        """
        if batch not in self._atomic:
            raise ConfigError(
                f"no programs for batch {batch} and sites {list(sites)}: call warm_atomic() or "
                f"warm_merged() first (batch shapes: {list(self.batch_sizes)})"
            )
        stages, heads = self._atomic[batch]
        segments: list[Segment] = []
        for site, stage in enumerate(stages):
            segments.append(stage)
            if site in sites:
                segments.append(heads[site])
        return Route(sites, batch, False, tuple(segments))

    def _run_once(self, route: Route) -> None:
        inputs = jax.device_put(self.example_inputs(route.batch), self.device)
        answers = route.dispatch(self.ramp_params, inputs)
        jax.block_until_ready(list(answers))

    def _answer(self, site: int, params: Sequence[Any], carry: Any, inputs: Sequence[Any]) -> Any:
        mask = inputs[self._mask] if self._mask is not None else None
        ramp = self.ramps[site]
        named = dict(zip(self._param_names[site], params, strict=True))
        logits = head_logits(named, pool(ramp.kind, carry, mask), ramp.style)
        return pack_answer(logits, self._criterion)

    def _merged_segments(
        self, sites: tuple[int, ...], batch: int, child: CompileProcess | None = None
    ) -> Iterator[Segment]:
        for start, stop in itertools.pairwise((None, *sites, None)):
            yield self._segment(batch, start, stop, ramp=stop, child=child)

    def _merge_in_background(self, sites: tuple[int, ...], busy: Callable[[], bool]) -> None:
        missing = [batch for batch in self.batch_sizes if (sites, batch) not in self._merged]
        if not missing or not self._may_go_on(sites, busy):
            return
        with self._compiler(is_useful()) as child:
            try:
                for batch in missing:
                    segments = []
                    for segment in self._merged_segments(sites, batch, child):
                        segments.append(segment)
                        time.sleep(REST_S)
                        if not self._may_go_on(sites, busy):
                            return
                    route = Route(sites, batch, True, tuple(segments))
                    self._run_once(route)  # what does not run is not swapped in
                    self._merged[sites, batch] = route
            except CompileError:
                if not self._is_stale(sites):
                    raise
        self._forget_old_sets()

    @contextmanager
    def _compiler(self, child: bool) -> Iterator[CompileProcess | None]:
        """A child that compiles, which :meth:`close` ends; None if this process is to do it."""
        if not child:
            yield None
            return
        with CompileProcess() as process:
            self._child = process
            try:
                yield process
            finally:
                self._child = None

    def _kept_segments(self) -> Iterator[Segment]:
        for route in self._merged.values():
            yield from route.segments
        for stages, heads in self._atomic.values():
            yield from (*stages, *heads.values())

    def _may_go_on(self, sites: tuple[int, ...], busy: Callable[[], bool]) -> bool:
        """Wait while there is no time to compile; False once nobody wants these sites any more."""
        while busy() and not self._is_stale(sites):
            time.sleep(REST_S)
        return not self._is_stale(sites)

    def _is_stale(self, sites: tuple[int, ...]) -> bool:
        return self._closed or self._lately[-1] != sites

    def _forget_old_sets(self) -> None:
        with self._lock:
            kept = {(), *self._lately[-KEPT:]}
            self._lately = self._lately[-KEPT:]
            self._merged = {key: r for key, r in self._merged.items() if key[0] in kept}
        self.executables.keep([segment.call for segment in self._kept_segments()])

    def _segment(
        self,
        batch: int,
        start: int | None,
        stop: int | None,
        ramp: int | None,
        child: CompileProcess | None = None,
    ) -> Segment:
        """Compile the stage between two sites, with the head of ``ramp`` (its end) fused in."""
        program = self._programs[batch]
        stage = program.stage(start, stop)
        leading = self.ramp_params[ramp] if ramp is not None else ()
        split = len(leading)

        def run(*args: Any) -> tuple[Any, ...]:
            out = _run_stage(stage, args[split:])
            if stop is None:
                return (pack_answer(out),)
            if ramp is None:
                return (out,)
            inputs = args[len(args) - len(program.input_shapes) :]
            return out, self._answer(ramp, args[:split], out, inputs)

        carried = () if stage.carry is None else (stage.carry,)
        arguments = (*leading, *stage.constants, *carried, *program.input_shapes)
        call = self.executables.get(run, arguments, self._options, child, self.device)
        return Segment(
            call=call,
            constants=tuple(jax.device_put(stage.constants, self.device)),
            takes_carry=stage.carry is not None,
            gives_carry=stop is not None,
            ramp=ramp,
            gives_answer=stop is None or ramp is not None,
        )

    def _head(self, batch: int, site: int, child: CompileProcess | None = None) -> Segment:
        """Compile the head of one ramp alone, for routes of atomic stages."""
        program = self._programs[batch]
        where = program.sites[site]
        split = len(self.ramp_params[site])

        def run(*args: Any) -> tuple[Any, ...]:
            return (self._answer(site, args[:split], args[split], args[split + 1 :]),)

        carry = jax.ShapeDtypeStruct(where.shape, where.dtype)
        arguments = (*self.ramp_params[site], carry, *program.input_shapes)
        call = self.executables.get(run, arguments, self._options, child, self.device)
        return Segment(call, (), True, False, site, True)


def _log_failure(compiled: "Future[None]") -> None:
    """Note why merged stages could not be compiled; the atomic ones go on serving."""
    if not compiled.cancelled() and compiled.exception() is not None:
        logger.error("merged stages could not be compiled", exc_info=compiled.exception())


def _run_stage(stage: Stage, args: Sequence[Any]) -> Any:
    """Evaluate a stage on flat arguments ``[*constants, [carry], *inputs]``."""
    count = len(stage.constants)
    first_input = count + (stage.carry is not None)
    carry = args[count] if stage.carry is not None else None
    return stage.body(args[:count], carry, *args[first_input:])[0]
