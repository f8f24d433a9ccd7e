"""The guard against every adversary: what it promises holds for any sequence, at every moment."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apparate_jax.control import guard
from apparate_jax.control.guard import REPAID, SPAN, Guard


def bound(eps: float, answers: int) -> float:
    """Wrong answers that may have been given, in the words of the docs."""
    return eps * (answers + 512 * max(0.0, 1.0 - answers / 2048))


class Server:
    """Batches under way, and a client that decides afterwards which early answers were wrong."""

    def __init__(self, start: Guard, depth: int) -> None:
        self.guard = start
        self.depth = depth
        self.under_way: deque[list[bool | None]] = deque()
        self.exits = 0
        self.order: list[bool] = []

    def serve(self, wish: list[bool | None]) -> None:
        """A batch: None stays to the end, True and False leave early, right or wrong, if they may.

        What the guard denies stays to the end, and is right.
        """
        cap = guard.exit_cap(self.guard)
        served: list[bool | None] = []
        for one in wish:
            leaves = one is not None and (cap is None or self.exits < cap)
            self.exits += leaves
            served.append(one if leaves else None)
        self.under_way.append(served)
        while len(self.under_way) > self.depth:
            self.check()

    def check(self) -> None:
        batch = self.under_way.popleft()
        wrong = [row for row, one in enumerate(batch) if one is False]
        early = sum(one is not None for one in batch)
        self.guard = guard.observe(self.guard, len(batch), early, wrong)
        self.order += [one is not False for one in batch]

    @property
    def given_wrong(self) -> int:
        """Wrong answers that were given, checked or not."""
        unchecked = sum(one is False for batch in self.under_way for one in batch)
        return self.order.count(False) + unchecked

    @property
    def given(self) -> int:
        """Answers of completed batches: fewer than were given."""
        return len(self.order)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([0.0, 0.005, 0.01, 0.05, 0.3]),
    st.integers(0, 3),
    st.sampled_from(["long-run", "window"]),
    st.lists(
        st.tuples(
            st.integers(1, 60),  # batches
            st.integers(1, 16),  # inputs of each
            st.sampled_from([0.0, 0.1, 0.5, 1.0]),  # share that would leave early
            st.sampled_from([0.0, 0.05, 0.5, 1.0]),  # share of wrong ones among them
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 2**32 - 1),
)
def test_never_more_wrong_than_allowed(eps, depth, promise, regimes, seed):
    """At every moment, in-flight answers included, whatever the client does."""
    rng = np.random.default_rng(seed)
    server = Server(Guard(eps, promise), depth)
    for batches, size, leaving, wrong in regimes:
        for _ in range(batches):
            early = rng.random(size) < leaving
            bad = rng.random(size) < wrong
            server.serve([not b if e else None for e, b in zip(early, bad, strict=True)])
            assert server.given_wrong <= bound(eps, server.given) + 1e-6


@pytest.mark.parametrize("eps", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("depth", [0, 2])
def test_the_worst_client_is_held_to_the_constraint(eps, depth):
    """Every early answer is wrong, for 6,000 answers."""
    server = Server(Guard(eps, "long-run"), depth)
    for _ in range(750):
        server.serve([False] * 8)
        if server.given >= REPAID:
            assert server.given_wrong <= eps * server.given + 1e-6
    # and it is not held by letting nobody out
    assert server.given_wrong > 0.8 * eps * server.given


@pytest.mark.parametrize("client", ["worst", "bursts", "patient"])
def test_few_windows_are_above_whatever_comes(client):
    """Promise ``window``: at most 5 % of all windows of 512 answers are above the constraint."""
    eps, rng = 0.01, np.random.default_rng(0)
    server = Server(Guard(eps, "window"), 2)
    while server.given < 40_000:
        burst = (server.given // 700) % 3 == 0
        wrong = {"worst": 1.0, "bursts": 0.5 if burst else 0.0, "patient": 0.02}[client]
        open_now = guard.level(server.guard) > 0.0
        early = rng.random(8) < 0.8
        bad = rng.random(8) < wrong
        server.serve([not b if e and open_now else None for e, b in zip(early, bad, strict=True)])
    lost = np.convolve(~np.asarray(server.order), np.ones(SPAN), "valid")
    assert (lost > eps * SPAN).mean() <= 0.05
    assert server.guard.above == (lost > eps * SPAN).sum()


def test_counts_windows_as_they_end():
    rng = np.random.default_rng(1)
    state, order = Guard(0.01, "window"), []
    for _ in range(600):
        bad = np.flatnonzero(rng.random(5) < 0.02).tolist()
        state = guard.observe(state, 5, 5, bad)
        order += [row in bad for row in range(5)]
    ends = [sum(order[i - SPAN + 1 : i + 1]) for i in range(SPAN - 1, len(order))]
    assert state.above == sum(lost > 0.01 * SPAN for lost in ends)
    assert state.wrong == sum(order)
    assert [at for at in range(len(order) - SPAN, len(order)) if order[at]] == list(state.recent)


def test_level_rises_with_credit_and_is_nothing_without():
    levels = []
    for wrong in range(60, -1, -5):
        state = Guard(0.01, "long-run", answers=5000, wrong=wrong)
        levels.append(guard.level(state))
    assert levels == sorted(levels)
    assert levels[0] == 0.0 and levels[-1] > 1.0


@pytest.mark.parametrize("batches", [2, 3])
def test_credit_is_kept_for_every_batch_that_may_be_unchecked(batches):
    """As many answers more are kept in reserve as a batch lets out, for each of them."""
    few = Guard(0.01, "long-run", answers=5000, wrong=20, under_way=4.0)
    many = few._replace(batches=batches, wrong=few.wrong - 4 * (batches - 1))
    assert guard.level(many) == pytest.approx(guard.level(few))
    assert guard.level(few._replace(batches=batches)) < guard.level(few)


def test_level_of_a_window_falls_with_what_is_left_of_it():
    def at(wrong):
        recent = tuple(range(4990, 4990 + wrong))
        return guard.level(Guard(0.01, "window", answers=5000, recent=recent))

    levels = [at(wrong) for wrong in range(11)]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] == pytest.approx(guard.WINDOW_BASE) and levels[10] == 0.0


def test_no_promise_is_the_constraint_itself():
    state = guard.observe(Guard(0.01, "none"), 100, 100, list(range(100)))
    assert guard.exit_cap(state) is None
    assert guard.level(state) == 1.0


def test_perfect_accuracy_lets_nobody_out():
    state = guard.observe(Guard(0.0, "long-run"), 10_000, 0, [])
    assert guard.exit_cap(state) == 0
    assert guard.level(state) == 0.0
