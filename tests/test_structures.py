"""The tree is what docs/structures.md says, and imports point one way."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "structures.md"
PACKAGES = ("src/apparate_jax", "cli/apparate_cli", "benchmarks", "examples")
LINE = re.compile(r"- `(?P<path>[^`]+\.py)` - (?P<what>\S.*)")

LIBRARY, COMMANDS = "apparate_jax", "apparate_cli"
NOUNS = {"core", "errors"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "core": {"errors"},
    "manifest": {"errors"},
    "memory": set(),
    "storage": {"manifest"},
    "graph": NOUNS,
    "models": NOUNS,
    "data": NOUNS,
    "ramps": NOUNS | {"graph", "data"},
    "control": NOUNS | {"graph", "ramps"},
    "checkpoint": NOUNS | {"graph", "manifest", "models", "ramps", "storage"},
    "serve": NOUNS | {"graph", "ramps", "control", "checkpoint", "manifest", "memory", "data"},
    "bench": NOUNS | {"graph", "ramps", "control", "data", "serve"},
}
"""What each part of the library may import besides itself; nothing imports the command line."""
UNSTABLE = ("jax.extend", "jax._src", "jax.interpreters")


def modules():
    """Every module, as paths from the root."""
    found = (file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
    return sorted(file.relative_to(ROOT).as_posix() for file in found)


@cache
def parsed(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def line_for(path):
    """The line that a module has in the document, made of its docstring."""
    docstring = ast.get_docstring(parsed(path))
    assert docstring is not None, f"{path} has no docstring that says what it is for"
    text = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", docstring.splitlines()[0])
    return f"- `{path}` - {text.replace('``', '`').rstrip('.')}"


def listed():
    """Paths in the document's lines, in their order."""
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    return [match["path"] for line in lines if (match := LINE.fullmatch(line))]


def imports(path):
    """Modules that a module imports, wherever in its code."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import, expected the whole name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parts_of(path):
    """Parts of the library that a module of it imports."""
    for name in imports(path):
        package, _, rest = name.partition(".")
        if package == LIBRARY and rest:
            yield rest.split(".")[0]


def own_part(path):
    return path.removeprefix("src/apparate_jax/").split("/")[0].removesuffix(".py")


def test_every_module_has_its_line():
    missing = sorted(set(modules()) - set(listed()))
    assert not missing, "add to docs/structures.md:\n" + "\n".join(map(line_for, missing))


def test_every_line_has_its_module():
    gone = sorted(set(listed()) - set(modules()))
    assert not gone, "remove from docs/structures.md: " + ", ".join(gone)


def test_no_line_stands_twice_and_each_under_its_package():
    found = listed()
    twice = sorted({path for path in found if found.count(path) > 1})
    assert not twice, f"twice in docs/structures.md: {twice}"
    heading = ""
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif match := LINE.fullmatch(line):
            folder = match["path"].rpartition("/")[0]
            assert heading == folder, f"{match['path']} stands under {heading!r}, not {folder!r}"
        elif line.startswith("- `") and ".py`" in line:
            pytest.fail(f"docs/structures.md: {line!r}, expected - `path.py` - what it is for")


def test_imports_point_one_way():
    problems = []
    for path in modules():
        part = own_part(path)
        # The package's own __init__ re-exports names of all parts.
        if path.startswith("src/") and part != "__init__":
            allowed = MAY_IMPORT.get(part)
            assert allowed is not None, f"{part!r} is new: say in MAY_IMPORT what it may import"
            wrong = sorted(set(parts_of(path)) - allowed - {part})
            problems += [f"{path} imports {name}, allowed are {sorted(allowed)}" for name in wrong]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("packages", "but", "unwanted"),
    [
        (("src/", "benchmarks/"), (), (COMMANDS,)),
        (("src/", "cli/"), (), ("tests", "pytest", "benchmarks", "examples")),
        (PACKAGES, ("src/apparate_jax/graph/_jaxpr.py",), UNSTABLE),
    ],
    ids=["the command line is on top", "no tests in the product", "one file for unstable parts"],
)
def test_what_nobody_imports(packages, but, unwanted):
    problems = [
        f"{path} imports {name}"
        for path in modules()
        if path.startswith(packages) and path not in but
        for name in sorted(set(imports(path)))
        if any(name == root or name.startswith(f"{root}.") for root in unwanted)
    ]
    assert not problems, "\n".join(problems)


def test_the_rule_has_no_circle():
    """Parts can be put in an order in which each imports only those before it."""
    left, done = dict(MAY_IMPORT), set()
    while left:
        ready = {part for part, wanted in left.items() if wanted <= done}
        assert ready, f"a circle among {sorted(left)}"
        done |= ready
        left = {part: wanted for part, wanted in left.items() if part not in ready}
