"""The demo's model with ramps, for benchmarks: trained once into runs/bench."""

import subprocess
import sys
from pathlib import Path

from apparate_jax.checkpoint import Checkpoint, is_checkpoint, load_checkpoint

ROOT = Path(__file__).parent.parent
RUN = ROOT / "runs" / "bench"


def demo_checkpoint() -> Checkpoint:
    """MiniLM-L6 fine-tuned on IMDB, with a ramp at every site."""
    path = RUN / "checkpoint"
    if not (is_checkpoint(path) and load_checkpoint(path).ramps):
        sys.path.insert(0, str(ROOT / "examples"))
        import imdb

        imdb.write("ramps", RUN / "ramps.csv")
        apparate = str(Path(sys.executable).parent / "apparate")
        model = str(ROOT / "checkpoints" / "minilm-l6-imdb")
        subprocess.run([apparate, "inject", model, "-o", str(path)], check=True)
        data = ["--data", str(RUN / "ramps.csv"), "--data-frac", "1"]
        subprocess.run([apparate, "train-ramps", str(path), *data], check=True)
    return load_checkpoint(path)
