"""Cut vertices against networkx, which never saw the jaxpr; and which of them become sites."""

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from jax import lax

from apparate_jax.errors import NoCutVertexError
from apparate_jax.graph import trace
from apparate_jax.graph.cuts import cut_vertices, group_cuts, stretches, widest_span
from tests.branching_models import BRANCHING, long_skip
from tests.graph.programs import BATCH, OUT, RandomProgram, flow_of, random_programs, scope
from tests.zoo import CASES, normal


def cut_scopes(model: RandomProgram) -> list[str]:
    flow = flow_of(model, model.params, *model.inputs)
    return [scope(flow.online[cut.eqn_index]) for cut in cut_vertices(flow)]


def in_order(nodes) -> list[str]:
    return sorted(nodes, key=lambda node: int(node[1:]))


@settings(max_examples=150, deadline=None)
@given(random_programs(one_source=True))
def test_of_one_source_they_are_the_articulation_points(model: RandomProgram):
    graph = model.hot_graph()
    ends = graph.to_undirected()
    ends.add_edges_from([("before", "n0"), (OUT, "after")])
    points = set(nx.articulation_points(ends)) - {OUT}
    assert cut_scopes(model) == in_order(points)


@settings(max_examples=150, deadline=None)
@given(random_programs(one_source=True))
def test_of_one_source_they_dominate_the_logits(model: RandomProgram):
    parents = nx.immediate_dominators(model.hot_graph(), "n0")
    chain, node = [], parents[OUT]
    while node != "n0":
        chain.append(node)
        node = parents[node]
    assert cut_scopes(model) == ["n0", *reversed(chain)]


@settings(max_examples=150, deadline=None)
@given(random_programs())
def test_of_several_sources_no_edge_jumps_over_them(model: RandomProgram):
    """In the model's own order: what ran before a cut reaches the rest through it alone."""
    graph = model.hot_graph()
    place = {node: len(model.ops) if node == OUT else int(node[1:]) for node in graph}

    def is_cut(node: str) -> bool:
        spans = ((place[a], place[b]) for a, b in graph.edges if a != node)
        return not any(start < place[node] < stop for start, stop in spans) and not any(
            place[other] < place[node] and not nx.has_path(graph, other, node) for other in graph
        )

    assert cut_scopes(model) == in_order(node for node in graph if node != OUT and is_cut(node))


@settings(max_examples=100, deadline=None)
@given(random_programs())
def test_a_site_is_the_last_cut_before_the_next_real_work(model: RandomProgram):
    flow = flow_of(model, model.params, *model.inputs)
    cuts = cut_vertices(flow)
    products = {f"n{i}" for i, op in enumerate(model.ops) if op.kind == "dense"}
    live = [f"n{i}" for i in range(len(model.ops)) if f"n{i}" in model.hot_graph()]
    last_of: dict[int, str] = {}
    for name in map(scope, (flow.online[cut.eqn_index] for cut in cuts)):
        done = sum(node in products for node in live[: live.index(name) + 1])
        if done:
            last_of[done] = name
    sites = [scope(flow.online[cut.eqn_index]) for cut in group_cuts(cuts, flow, BATCH)]
    assert sites == list(last_of.values())


def test_no_work_is_counted_twice():
    for make in CASES.values():
        case = make()
        flow = flow_of(case.fn, case.params, *case.inputs)
        cuts = cut_vertices(flow)
        work = [cut.work_before for cut in cuts]
        assert work == sorted(work) and work[-1] <= flow.total_flops
        assert all(cut.heavy_before <= cut.work_before for cut in cuts)
        assert len({cut.var for cut in cuts}) == len(cuts)


def test_cuts_before_the_first_and_after_the_last_real_work_are_no_sites():
    params = {"scale": normal(1, 8), "w": normal(2, 8, 8), "v": normal(3, 8, 3), "b": normal(4, 3)}

    def fn(params, x):
        x = jnp.tanh(x * params["scale"])
        x = jnp.tanh(x @ params["w"])
        return jnp.tanh(x @ params["v"]) + params["b"]

    flow = flow_of(fn, params, normal(0, 4, 8))
    cuts = cut_vertices(flow)
    assert len(cuts) == 6
    (group,) = stretches(cuts, flow)
    assert [flow.online[cut.eqn_index].primitive.name for cut in group] == ["dot_general", "tanh"]


def test_a_small_layer_is_no_stretch_of_its_own():
    params = [normal(1, 64, 64), normal(2, 64, 2), normal(3, 2, 64), normal(4, 64, 64)]

    def fn(params, x):
        x = jnp.tanh(x @ params[0])
        x = jnp.tanh(x @ params[1] @ params[2])
        return jnp.tanh(x @ params[3]) @ params[3]

    shapes = [site.shape for site in trace(fn, params, normal(0, 4, 64)).sites]
    assert shapes == [(4, 64), (4, 2), (4, 64), (4, 64)]
    small = [normal(1, 512, 512), normal(2, 512, 1), normal(3, 1, 512), normal(4, 512, 512)]
    assert [site.shape for site in trace(fn, small, normal(0, 4, 512)).sites] == [(4, 512)] * 2


def test_models_without_products_are_grouped_by_all_of_their_operations():
    params = [normal(i, 8) for i in range(4)]

    def fn(params, x):
        for scale in params:
            x = jnp.tanh(x * scale)
        return x

    assert len(trace(fn, params, normal(0, 4, 8)).sites) >= 3


def test_a_ramp_reads_the_value_before_it_is_relabelled():
    params = [normal(1, 6, 6, 16), normal(2, 16, 3)]

    def fn(params, x):
        x = jnp.tanh(jnp.einsum("bij,ijk->bik", x, params[0]))
        x = x.reshape(x.shape[0], 2, 3, 16).transpose(0, 2, 1, 3)
        return x.sum((1, 2)) @ params[1]

    (site,) = trace(fn, params, normal(0, 4, 6, 6)).sites
    assert site.shape == (4, 16)  # the sum, not one of the layouts before it

    def relabelled(params, x):
        x = jnp.tanh(jnp.einsum("bij,ijk->bik", x, params[0]))
        x = x.reshape(x.shape[0], 2, 3, 16).transpose(0, 2, 1, 3)
        return lax.dot_general(x, params[1], (((3,), (0,)), ((), ()))).max((1, 2))

    (site,) = trace(relabelled, params, normal(0, 4, 6, 6)).sites
    assert site.shape == (4, 6, 16)


def test_a_value_without_the_batch_in_front_is_passed_over():
    params = [normal(1, 8, 8), normal(2, 8, 8), normal(3, 3, 8)]

    def fn(params, x):
        x = jnp.tanh(x @ params[0])
        x = jnp.tanh(params[1] @ x.T)
        return (params[2] @ x).T

    program = trace(fn, params, normal(0, 4, 8))
    assert [site.shape for site in program.sites] == [(4, 8)]
    # Turned back, even a relabelled value will do.
    back = trace(lambda params, x: fn(params, x) @ jnp.ones((3, 5)), params, normal(0, 4, 8))
    assert [site.shape for site in back.sites] == [(4, 8), (4, 3)]


def test_the_widest_span_is_the_value_that_jumps_over_the_model():
    case = long_skip()
    flow = flow_of(case.fn, case.params, *case.inputs)
    span = widest_span(flow)
    assert span is not None and scope(span) == "embedding"


@pytest.mark.parametrize(
    ("name", "depths"),
    [("u_net", [(0, 0.2), (0.5, 1)]), ("densenet_of_lists", [(0, 0.1), (0.4, 1)])],
)
def test_skips_over_many_layers_leave_a_gap_between_sites(name, depths):
    case = BRANCHING[name]()
    program = trace(case.fn, case.params, *case.inputs)
    found = np.array([site.depth for site in program.sites])
    (low, high), (after, end) = depths
    assert low < found[0] < high
    assert ((after < found[1:]) & (found[1:] <= end)).all()


def test_no_cut_vertex_is_an_error():
    case = long_skip()
    with pytest.raises(NoCutVertexError):
        trace(case.fn, case.params, *case.inputs)
