"""Shapes and types of the package's array functions are checked at run time in tests.

Every module that annotates arrays with jaxtyping is checked by beartype, whoever calls it. The
annotations are compared when a function is called, or traced, so compiled code runs as before.
"""

from pathlib import Path

from jaxtyping import install_import_hook

SOURCES = Path(__file__).parent.parent / "src"
ANNOTATED = sorted(
    ".".join(file.relative_to(SOURCES).with_suffix("").parts)
    for file in (SOURCES / "apparate_jax").rglob("*.py")
    if "\nfrom jaxtyping import " in file.read_text(encoding="utf-8")
)

install_import_hook(ANNOTATED, "beartype.beartype")
