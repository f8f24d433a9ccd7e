"""Run benchmarks, each in a process of its own: ``python benchmarks/run.py [names...]``."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def names() -> list[str]:
    """Every benchmark that there is."""
    return sorted(f.stem for f in HERE.glob("*.py") if f.stem != "run" and f.stem[0] != "_")


def main() -> None:
    """Run what was asked for, or everything."""
    asked = sys.argv[1:] or names()
    unknown = sorted(set(asked) - set(names()))
    if unknown:
        sys.exit(f"unknown benchmarks {unknown}, expected some of {names()}")
    failed = []
    for name in asked:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
