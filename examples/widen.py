"""Widen a BERT classifier to twice its sizes, with the same answers.

    python examples/widen.py runs/demo/checkpoint --out runs/wide

Net2Net's widening (Chen, Goodfellow and Shlens, 2016, arXiv 1511.05641): every hidden unit is there
twice, and every weight that reads such a unit is halved. A MiniLM-L6 (width 384, 12 heads of 32,
feed-forward 1,536) becomes 6 layers of width 768, 12 heads of 64 and feed-forward 3,072: it is of
DistilBERT's size and cost, with MiniLM's answers. The family stays ``bert``.

Takes a checkpoint or what else ``apparate inject`` takes, and writes a checkpoint without ramps:
``apparate train-ramps`` is next.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from apparate_jax.checkpoint import Checkpoint, is_checkpoint, load_checkpoint, save_checkpoint
from apparate_jax.core import Model
from apparate_jax.errors import ApparateError, ModelError
from apparate_jax.graph import trace
from apparate_jax.models import load_model
from apparate_jax.models.bert import BERT, BertConfig

HEAD = "classifier"
"""Its outputs are the classes, which stay as many as they are."""
BATCH = 4
TOLERANCE = 1e-3
"""Of the largest logit, what rounding may change."""


def wide_config(config: BertConfig) -> BertConfig:
    """The same with twice the width, of the network and of each of its heads."""
    return replace(
        config,
        hidden_size=2 * config.hidden_size,
        intermediate_size=2 * config.intermediate_size,
    )


def widened(path: str, value: Any) -> np.ndarray[Any, Any]:
    """A parameter for the network in which every hidden unit ``i`` is there as ``2 i, 2 i + 1``.

    Layer norms see the same mean and variance as before. Products of queries and keys double, while
    the scale goes from ``1 / sqrt(d)`` to ``1 / sqrt(2 d)``: queries are divided by ``sqrt(2)``.

    Args:
        path: Of the parameter, as ``layers/0/attention/query/kernel``.
        value: f[inputs, outputs] of a layer, f[rows, hidden] of a table, f[hidden] else.
    """
    parts = path.split("/")
    wide = np.asarray(value)
    if parts[-1] == "kernel":
        wide = np.repeat(wide, 2, axis=0) / 2
    if parts[0] != HEAD:
        wide = np.repeat(wide, 2, axis=-1)
    if "query" in parts:
        wide = wide / math.sqrt(2)
    return wide


def widen(model: Model) -> Model:
    """A model of twice the width that answers the same.

    Args:
        model: Of the family ``bert``.

    Raises:
        ModelError: It is of another family.
    """
    kind = model.source.get("kind")
    if kind != BERT.kind:
        raise ModelError(
            f"{model.name} is of the family {kind!r}, and only {BERT.kind!r} can be widened: give "
            "a checkpoint or directory of a BERT classifier"
        )
    config = BERT.configure(model.source["config"])
    made = BERT.make(wide_config(config))
    params: Mapping[str, Any] = {
        path: jnp.asarray(widened(path, value), made.params[path].dtype)
        for path, value in model.params.items()
    }
    return replace(
        made,
        name=f"{model.name}-wide",
        params=params,
        labels=model.labels,
        assets=model.assets,
    )


def difference(one: Model, other: Model) -> float:
    """Largest difference of two models' logits on random tokens, over the largest logit."""
    inputs = one.example_inputs(BATCH)
    ours, theirs = (np.asarray(m.apply(m.params, *inputs)) for m in (one, other))
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())


def read(path: str) -> Model:
    """The model of a checkpoint, without its ramps, or from anything else that can be injected."""
    return load_checkpoint(path).model if is_checkpoint(path) else load_model(path)


def main() -> None:
    """Read, widen, compare, save."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", metavar="CKPT", help="checkpoint, directory or name of the zoo")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint directory to make")
    args = parser.parse_args()
    try:
        model = read(args.model)
        wide = widen(model)
        off = difference(model, wide)
        if not off < TOLERANCE:
            raise ModelError(f"the wide model's logits differ by {off:.1%} of the largest")
        program = trace(wide.apply, wide.params, *wide.example_inputs(BATCH))
        save_checkpoint(args.out, Checkpoint(wide, program.sites))
    except ApparateError as error:
        parser.error(str(error))
    count = sum(math.prod(value.shape) for value in wide.params.values())
    print(f"{wide.name}: {count / 1e6:.1f} M parameters, logits within {off:.1e}, in {args.out}")


if __name__ == "__main__":
    main()
