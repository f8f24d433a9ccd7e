"""The demo: a real model on real reviews, with early answers, against the original.

    just demo

Runs the command line itself: inject, train-ramps, bench live. Leaves everything in runs/demo:
the checkpoint, report.json and report.png.
"""

import subprocess
import sys
import time
from pathlib import Path

import imdb
from rich.console import Console

MODEL = Path("checkpoints/minilm-l6-imdb")
RUN = Path("runs/demo")


def apparate(console: Console, *words: str) -> None:
    """Run one command of the command line; its failure ends the demo."""
    console.rule(f"apparate {' '.join(words)}", align="left", style="dim")
    done = subprocess.run([str(Path(sys.executable).parent / "apparate"), *words], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def main() -> None:
    """Write the reviews, then inject, train and measure."""
    console = Console(stderr=True, highlight=False)
    start = time.monotonic()
    ramps, stream = RUN / "reviews-ramps.csv", RUN / "reviews-stream.csv"
    imdb.write("ramps", ramps)
    imdb.write("stream", stream, limit=6000)
    checkpoint = str(RUN / "checkpoint")
    apparate(console, "inject", str(MODEL), "-o", checkpoint, "--replace")
    apparate(console, "train-ramps", checkpoint, "--data", str(ramps), "--data-frac", "1")
    apparate(
        console,
        *("bench", "live", checkpoint, "--data", str(stream)),
        *("--json", str(RUN / "report.json"), "--plot", str(RUN / "report.png")),
    )
    console.rule(style="dim")
    console.print(
        f"done in {time.monotonic() - start:.0f} s: {RUN}/report.json, {RUN}/report.png, "
        f"and a checkpoint to serve: .venv/bin/apparate serve {checkpoint}"
    )


if __name__ == "__main__":
    main()
