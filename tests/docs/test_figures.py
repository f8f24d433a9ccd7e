"""Figures that say where they are from are what their files have."""

import operator
import re

import pytest

from tests.docs.figures import DOCUMENTS, FIGURE, TITLED, renewed, scaled, value_at

TARGET = re.compile(r"(at least|at most|below) ([\d.,]+)")
HOLDS = {"at least": operator.ge, "at most": operator.le, "below": operator.lt}
LINK = '[x 0.5](../benchmarks/results/split_cost.json "batch 1 / two ramps / ratio")'


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_figures(document):
    for line in document.read_text(encoding="utf-8").splitlines():
        assert line == renewed(line), "run python -m tests.docs.renew"
        assert len(FIGURE.findall(line)) == len(TITLED.findall(line)), line


def test_there_are_figures():
    (performance,) = (path for path in DOCUMENTS if path.name == "performance.md")
    assert len(FIGURE.findall(performance.read_text(encoding="utf-8"))) > 50


def targets(text):
    """Rows whose second cell is a target and whose third has figures: (met, said to be met)."""
    for line in text.splitlines():
        cells = line.split(" | ")
        if len(cells) < 3 or not (target := TARGET.match(cells[1])):
            continue
        bound = float(target[2].replace(",", ""))
        values = [scaled(figure) for figure in FIGURE.finditer(cells[2])]
        if values:
            yield all(HOLDS[target[1]](v, bound) for v in values), "missed" not in line, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_missed_target_is_said_to_be_missed(document):
    for met, said, line in targets(document.read_text(encoding="utf-8")):
        assert met == said, line


def test_targets():
    value = value_at("split_cost.json", "batch 1 / two ramps / ratio")
    rows = (f"| a | {word} {value + by} | {LINK} |" for word in HOLDS for by in (-1, 1))
    assert [met for met, *_ in targets("\n".join(rows))] == [True, False, False, True, False, True]
    assert [said for _, said, _ in targets(f"| a | at most 1 | {LINK}, **missed** |")] == [False]


def test_renewed():
    value = value_at("split_cost.json", "batch 1 / two ramps / ratio")
    assert f"[x {value:.1f}](" in renewed(LINK)
    assert f"[{value * 100:.2f} %](" in renewed(LINK.replace("x 0.5", "0.50 %"))
    with pytest.raises(TypeError, match="expected a number"):
        renewed(LINK.replace(" / ratio", ""))
    with pytest.raises(KeyError):
        renewed(LINK.replace("ratio", "ration"))
