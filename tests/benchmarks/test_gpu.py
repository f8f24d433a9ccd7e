"""The GPU suite's plumbing: what is kept and left, and that one part's end is not the others'."""

import json
import os
import sys
from pathlib import Path

import pytest

GPU = Path(__file__).parent.parent.parent / "benchmarks" / "gpu"
DEVICE = "cpu, made up"


@pytest.fixture(scope="module")
def suite():
    """The suite's modules, which find one another as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(GPU))
        import _part
        import _sizes
        import run as command

        yield command, _part, _sizes
    for name in ("run", "_part", "_sizes", "_results"):
        sys.modules.pop(name, None)


@pytest.fixture
def part(tmp_path, monkeypatch):
    """Writes a part: a module whose cases are lines of code that return figures."""

    def write(name, cases):
        bodies = "".join(f"def {key}():\n    {body}\n" for key, body in cases.items())
        listed = ", ".join(f"'{key}': {key}" for key in cases)
        text = f'"""The part {name}."""\nimport os, time\n{bodies}'
        text += f"def cases(size):\n    return {{{listed}}}\n"
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    monkeypatch.setenv("PYTHONPATH", path)
    return write


class Clock:
    """Each case takes ten seconds: it is asked five times around one."""

    now = 0.0

    def __call__(self):
        self.now += 2.0
        return self.now


def run_here(suite, name, results, seconds=100.0, **named):
    _, _part, _ = suite
    return _part.run_part(name, "tiny", results, seconds, device=DEVICE, **named)


def content(results):
    (file,) = results.glob("gpu-*.json")
    assert file.name == "gpu-cpu.json"
    return json.loads(file.read_text())["parts"]


def test_a_case_that_fails_is_recorded_and_the_others_go_on(suite, part, tmp_path):
    name = part("fails", {"one": "return {'ms': 1}", "two": "1 / 0", "three": "return {'ms': 3}"})
    found = run_here(suite, name, tmp_path / "results")
    saved = content(tmp_path / "results")[name]
    assert saved["about"] == "The part fails."
    assert {key: case["ms"] for key, case in saved["cases"].items()} == {"one": 1, "three": 3}
    assert saved["failed"] == {"two": "ZeroDivisionError: division by zero"}
    assert saved["state"] == "partial" and found.left(name) == ["two"]


def test_the_budget_ends_a_part_and_the_next_call_goes_on(suite, part, tmp_path):
    cases = {key: f"return {{'ms': {i}}}" for i, key in enumerate(("one", "two", "three"))}
    name, begun = part("long", cases), []

    def tell(event):
        begun.extend([event["begins"]] if "begins" in event else [])

    for seconds, expected in ((12.0, ["one"]), (100.0, ["two", "three"]), (100.0, [])):
        begun.clear()
        found = run_here(suite, name, tmp_path / "results", seconds, tell=tell, clock=Clock())
        assert begun == expected
    assert found.left(name) == [] and content(tmp_path / "results")[name]["state"] == "done"


def test_other_settings_and_force_measure_again(suite, part, tmp_path, monkeypatch):
    name = part("again", {"one": "return {'pid': time.monotonic_ns()}"})
    results = tmp_path / "results"

    def figure(**named):
        run_here(suite, name, results, **named)
        return content(results)[name]["cases"]["one"]["pid"]

    first = figure()
    assert figure() == first
    assert (forced := figure(force=True)) != first
    _, _part, _sizes = suite
    monkeypatch.setitem(_part.SIZES, "tiny", _sizes.CPU)
    assert figure() != forced


def test_a_process_that_dies_costs_its_case_only(suite, part, tmp_path):
    command, *_ = suite
    dies = part("dies", {"one": "return {}", "two": "os._exit(9)", "three": "return {}"})
    good = part("good", {"only": "print('noise') or 1; return {}"})
    said = []
    arguments = ["--size", "tiny", "--device", DEVICE, "--results", str(tmp_path / "results")]
    call = command.Call(60.0, arguments)
    problems = command.run_call(call, {dies: 1, good: 1}, said.append)
    assert problems == {dies: "failed: two (its process ended with 9)"}
    assert set(content(tmp_path / "results")[dies]["cases"]) == {"one", "three"}
    assert said == [f"{dies}: {problems[dies]}", f"{good}: done"]
    said.clear()
    assert command.run_call(command.Call(0.0, arguments), {good: 1}, said.append)
    assert said == [f"{good}: no time left for it"]
    call.budget_s = 0.0
    assert command.run_call(call, {good: 1}, said.append) == {} and said[-1] == f"{good}: kept"


def test_a_process_that_hangs_is_ended(suite, part, tmp_path, monkeypatch):
    command, *_ = suite
    name = part("hangs", {"one": "return {}", "two": "time.sleep(600)"})
    monkeypatch.setattr(command, "GRACE_S", 0.2)
    arguments = ["--size", "tiny", "--device", DEVICE, "--results", str(tmp_path / "results")]
    problems = command.run_call(command.Call(1.5, arguments), {name: 1}, lambda line: None)
    assert "its time limit" in problems[name]


def test_every_part_is_a_module_with_cases_and_a_budget(suite):
    command, *_ = suite
    modules = {file.stem for file in GPU.glob("*.py") if file.stem[0] != "_"}
    assert set(command.PARTS) == modules - {"run"}
    for name in command.PARTS:
        assert "def cases(size: Size)" in (GPU / f"{name}.py").read_text(), name


@pytest.mark.parametrize(
    "name",
    [
        "copy_out",
        "tuner",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("early_release", "stages", "dispatch_cost", "throughput", "live")
        ),
    ],
)
def test_a_real_part_at_the_smallest_size(suite, tmp_path, name):
    run_here(suite, name, tmp_path / "results")
    saved = content(tmp_path / "results")[name]
    assert saved["failed"] == {} and saved["state"] == "done"
    (figures,) = saved["cases"].values()
    if name == "early_release":
        stages = figures["stages"]["answers_ms"]
        assert stages == sorted(stages) and len(stages) == len(figures["depths"]) + 1
        assert 0.0 < figures["stages"]["first_frac"] < 1.0
