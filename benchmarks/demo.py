"""The demo's figures: runs ``examples/demo.py`` and keeps its report. Writes results/demo.json."""

import json
import subprocess
import sys

from _common import write_result
from _demo import ROOT


def main() -> None:
    """Run the demo; its report holds the rounds and the machine."""
    subprocess.run([sys.executable, str(ROOT / "examples" / "demo.py")], check=True, cwd=ROOT)
    report = json.loads((ROOT / "runs" / "demo" / "report.json").read_text())
    write_result("demo", {"command": "just demo", "report": report})


if __name__ == "__main__":
    main()
