"""``trace`` a classifier and ``split`` it at its sites.

The model is not touched: any JAX-traceable function becomes a flat data-flow graph, its cut
vertices become sites, and the program between two chosen sites becomes a stage. Stages hold their
parameters: only the cut and the model's inputs travel between them.

Sharp edges: shapes are fixed at trace time (:meth:`Program.rebatch` traces again at another batch
size); random numbers that the function draws from a captured key are the same on every call; a
function that branches on the batch size may have other sites at another batch size, which is an
error; half precision is exact against ``jax.jit`` with :attr:`Program.compiler_options`, since XLA
leaves out roundings without them.
"""

import itertools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from apparate_jax.core import Site
from apparate_jax.errors import ApparateError, GraphError, NoCutVertexError
from apparate_jax.graph import _jaxpr, checks, cost
from apparate_jax.graph.cuts import Cut, cut_vertices, group_cuts
from apparate_jax.graph.flow import Flow, build_flow
from apparate_jax.graph.inline import inline
from apparate_jax.graph.names import site_names, user_line
from apparate_jax.graph.stages import StageBody, carry_shape, compiler_options, stage_body
from apparate_jax.graph.static import StaticValues


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The program between two chosen sites, with its constants bound.

    Attributes:
        body: Pure function ``(constants, carry, *inputs) -> (output, ...)``.
        constants: Parameters and static values that it reads, in argument order.
        carry: Shape and dtype of the incoming cut, None for the first stage.
        start: Index of the site where it starts, None at the inputs.
        stop: Index of the site where it ends, None at the logits.
    """

    body: StageBody = field(repr=False)
    constants: tuple[jax.Array, ...] = field(repr=False)
    carry: jax.ShapeDtypeStruct | None
    start: int | None
    stop: int | None
    _compiled: Callable[..., tuple[jax.Array, ...]] = field(repr=False)

    def __call__(self, carry: jax.Array | None, *inputs: Any) -> jax.Array:
        """Run the stage: ``carry`` is the previous stage's output (None for the first stage)."""
        if (carry is None) != (self.carry is None):
            got = "None" if carry is None else f"{carry.dtype}{list(carry.shape)}"
            want = "None (it starts at the inputs)"
            if self.carry is not None:
                want = f"{self.carry.dtype}{list(self.carry.shape)}, what the stage before gave"
            raise GraphError(f"this stage got carry {got}, expected {want}")
        # Compiler options are for outermost programs: inside of another one run the body itself.
        traced = any(isinstance(value, jax.core.Tracer) for value in (carry, *inputs))
        run = self.body if traced else self._compiled
        return run(self.constants, carry, *inputs)[0]


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A traced classifier with its sites. Immutable; made by :func:`trace`.

    Attributes:
        sites: Sites from the input to the output.
        batch: Batch size of the trace.
        num_classes: Width of the logits.
        input_shapes: Shape and dtype of each input, the batch axis included.
        output: Shape and dtype of the logits.
    """

    sites: tuple[Site, ...]
    batch: int
    num_classes: int
    input_shapes: tuple[jax.ShapeDtypeStruct, ...]
    output: jax.ShapeDtypeStruct
    _flow: Flow = field(repr=False)
    _cuts: tuple[Cut, ...] = field(repr=False)
    _leaves: Mapping[Any, Any] = field(repr=False)
    _statics: StaticValues = field(repr=False)
    _producer: Mapping[Any, Any] = field(repr=False)
    _origin: tuple[Callable[..., Any], Any] = field(repr=False)

    @property
    def flops(self) -> float:
        """Floating-point operations of one call at this batch size."""
        return self._flow.total_flops

    @property
    def num_cut_vertices(self) -> int:
        """Cut vertices before neighbouring ones were grouped into sites."""
        return len(cut_vertices(self._flow))

    @property
    def compiler_options(self) -> dict[str, bool]:
        """XLA options to compile stages with, so that every set of cuts gives the same logits."""
        return compiler_options(self._flow)

    def stage(self, start: int | None, stop: int | None) -> Stage:
        """The stage from site ``start`` (None: the inputs) to site ``stop`` (None: the logits).

        Raises:
            GraphError: If an index is out of range or ``start`` is not before ``stop``.
        """
        self._checked([site for site in (start, stop) if site is not None])
        carry_in = None if start is None else self._cuts[start].var
        out = self._flow.out if stop is None else self._cuts[stop].var
        body = stage_body(self._flow, self._producer, carry_in, [out])
        constants = self._statics.get(self._flow, self._leaves, body.statics)
        carry = None if carry_in is None else carry_shape(carry_in)
        compiled = jax.jit(body, compiler_options=self.compiler_options or None)
        return Stage(body, constants, carry, start, stop, compiled)

    def split(self, site_indices: Sequence[int]) -> tuple[Stage, ...]:
        """Stages between the given sites: one more than there are sites.

        ``stages[0](None, *inputs) -> carry``, ``stages[i](carry, *inputs) -> carry``,
        ``stages[-1](carry, *inputs) -> logits``.

        Args:
            site_indices: Ascending indices into :attr:`sites`; empty gives the whole model.

        Raises:
            GraphError: If an index is out of range or the order is not ascending.
        """
        chosen = self._checked(site_indices)
        bounds = [None, *chosen, None]
        return tuple(self.stage(a, b) for a, b in itertools.pairwise(bounds))

    def taps(
        self, site_indices: Sequence[int]
    ) -> Callable[..., tuple[tuple[jax.Array, ...], jax.Array]]:
        """One forward pass that returns the values at the given sites and the logits.

        For where nobody waits: training ramps, recording, shadow batches (all outputs of one
        compiled program are ready together, at its end).

        Returns:
            ``fn(*inputs) -> ((value, ...), logits)``, not compiled yet.
        """
        body, constants = self.tap_body(site_indices)

        def run(*inputs: Any) -> tuple[tuple[jax.Array, ...], jax.Array]:
            *values, logits = body(constants, None, *inputs)
            return tuple(values), logits

        return run

    def tap_body(self, site_indices: Sequence[int]) -> tuple[StageBody, tuple[jax.Array, ...]]:
        """The same with the parameters as an argument: captured ones are copied by the compiler.

        Returns:
            ``body(constants, None, *inputs) -> (value, ..., logits)``, and its constants.
        """
        chosen = self._checked(site_indices)
        outs = [*(self._cuts[i].var for i in chosen), self._flow.out]
        body = stage_body(self._flow, self._producer, None, outs)
        return body, self._statics.get(self._flow, self._leaves, body.statics)

    def rebatch(self, batch: int) -> "Program":
        """The same model traced at another batch size, with the same sites.

        Raises:
            GraphError: If the function does not trace at that size, or has other sites there.
        """
        if batch < 1:
            raise GraphError(f"batch is {batch}, expected at least 1")
        if batch == self.batch:
            return self
        fn, params = self._origin
        shapes = [jax.ShapeDtypeStruct((batch, *s.shape[1:]), s.dtype) for s in self.input_shapes]
        try:
            other = _trace(fn, params, shapes, self._statics)
        except GraphError:
            raise
        except Exception as error:
            raise GraphError(
                f"the model traces at batch {self.batch} but not at batch {batch}: {error}. "
                "Write it for any batch size (no fixed batch in reshape), or serve only that size"
            ) from error
        if list(map(_without_batch, other.sites)) != list(map(_without_batch, self.sites)):
            raise GraphError(
                f"the model has {len(self.sites)} sites at batch {self.batch} but "
                f"{len(other.sites)} others at batch {batch}: its structure must not depend on "
                "the batch"
            )
        return other

    def _checked(self, site_indices: Sequence[int]) -> list[int]:
        chosen = [operator.index(i) for i in site_indices]
        if chosen != sorted(set(chosen)) or not all(0 <= i < len(self.sites) for i in chosen):
            raise GraphError(
                f"sites {list(site_indices)}: expected ascending indices without repetition "
                f"between 0 and {len(self.sites) - 1}"
            )
        return chosen


def trace(fn: Callable[..., Any], params: Any, *example_inputs: Any) -> Program:
    """Trace a classifier and find its sites.

    Args:
        fn: ``fn(params, *inputs) -> logits f[batch, classes]``.
        params: Pytree of arrays.
        *example_inputs: Arrays (or ``ShapeDtypeStruct``) with the batch as leading axis.

    Returns:
        The program with its :attr:`Program.sites`.

    Raises:
        GraphError: Inputs or outputs that are not batched, several outputs, side effects, or a
            function that fails; shows the user's source line.
        NoCutVertexError: No place for a ramp; the message shows the equation that spans the model.

    References:
        Apparate (SOSP'24), section 3.1: feasible ramp sites are cut vertices.

    >>> import jax.numpy as jnp
    >>> params = [jnp.ones((4, 8)), jnp.ones((8, 8)), jnp.ones((8, 3))]
    >>> def mlp(params, x):
    ...     for w in params[:-1]:
    ...         x = jnp.tanh(x @ w)
    ...     return x @ params[-1]
    >>> program = trace(mlp, params, jnp.ones((2, 4)))
    >>> [site.shape for site in program.sites]
    [(2, 8), (2, 8)]
    >>> first, last = program.split([0])
    >>> last(first(None, jnp.ones((2, 4))), jnp.ones((2, 4))).shape
    (2, 3)
    """
    shapes = checks.input_shapes(example_inputs)
    checks.parameters(jax.tree.leaves(params))
    # Once and here: the programs at all batch sizes hold the same arrays, not copies of them.
    arrays = jax.tree.map(jax.numpy.asarray, params)
    try:
        return _trace(fn, arrays, shapes, StaticValues())
    except ApparateError:
        raise
    except Exception as error:
        raise GraphError(checks.explain_failure(error, shapes)) from error


def _trace(
    fn: Callable[..., Any],
    params: Any,
    shapes: Sequence[jax.ShapeDtypeStruct],
    statics: StaticValues,
) -> Program:
    batch = shapes[0].shape[0]
    leaves, treedef = jax.tree.flatten(params)

    def flat(*args: Any) -> Any:
        result = fn(jax.tree.unflatten(treedef, args[: len(leaves)]), *args[len(leaves) :])
        return checks.logits(result, batch)

    jaxpr, consts = _jaxpr.make_jaxpr(flat, [*map(checks.shape_struct, leaves), *shapes])
    checks.effects(jaxpr)
    inlined, lifted = inline(jaxpr, consts, len(leaves))
    flow = build_flow(inlined, len(consts), len(leaves))
    values = [*lifted, *consts, *leaves]
    bound = dict(zip((*flow.consts, *flow.params), map(jax.numpy.asarray, values), strict=True))
    cuts = group_cuts(cut_vertices(flow), flow, batch)
    if not cuts:
        raise NoCutVertexError(checks.explain_no_cut(flow, batch))
    producer = {v: eqn for eqn in flow.eqns for v in eqn.outvars}
    logits = jax.ShapeDtypeStruct(cost.shape_of(flow.out), flow.out.aval.dtype)
    return Program(
        sites=_sites(flow, cuts),
        batch=batch,
        num_classes=logits.shape[1],
        input_shapes=tuple(shapes),
        output=logits,
        _flow=flow,
        _cuts=tuple(cuts),
        _leaves=bound,
        _statics=statics,
        _producer=producer,
        _origin=(fn, params),
    )


def _without_batch(site: Site) -> tuple[Any, ...]:
    return site.name, site.shape[1:], site.dtype


def _sites(flow: Flow, cuts: Sequence[Cut]) -> tuple[Site, ...]:
    names = site_names(flow.online, cuts)
    return tuple(
        Site(
            index=i,
            name=name,
            depth=cut.work_before / flow.total_flops,
            shape=cost.shape_of(cut.var),
            dtype=np.dtype(cut.var.aval.dtype).name,
            source=user_line(flow.online[cut.eqn_index]),
        )
        for i, (name, cut) in enumerate(zip(names, cuts, strict=True))
    )
