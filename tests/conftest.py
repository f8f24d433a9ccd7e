"""What every test module runs under.

Shapes and types of the package's array functions are checked at run time: every module that
annotates arrays with jaxtyping is checked by beartype, whoever calls it. The annotations are
compared when a function is called, or traced, so compiled code runs as before.

A shell without job control starts what it puts in the background with SIGINT ignored, which
children inherit; the tests of Ctrl-C need it as it is elsewhere.
"""

import signal
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

SOURCES = Path(__file__).parent.parent / "src"
ANNOTATED = sorted(
    ".".join(file.relative_to(SOURCES).with_suffix("").parts)
    for file in (SOURCES / "apparate_jax").rglob("*.py")
    if "\nfrom jaxtyping import " in file.read_text(encoding="utf-8")
)

install_import_hook(ANNOTATED, "beartype.beartype")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def no_background_compiler_is_left():
    """End with a module what its engines still compile.

    The tracing thread passes beartype's checks, which draw from ``random``; Hypothesis reports
    that in whatever test runs by then.
    """
    from apparate_jax.serve.programs import Programs

    begun, prepare = [], Programs.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Programs, "prepare", lambda self, *args: begun.append(self) or prepare(self, *args)
        )
        yield
    for programs in begun:
        programs.close()
