"""Text families in a size for tests, and their directories as Hugging Face lays them out."""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from apparate_jax.models.families import FAMILIES

LAYERS = 2
VOCAB, WIDTH, SEQ_LEN, CLASSES = 60, 32, 12, 3
ZOO = {"bert": "bert-base", "distilbert": "distilbert", "roberta": "roberta-base", "gpt2": "gpt2"}
KINDS = tuple(ZOO)
SETTINGS = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "seq_len": SEQ_LEN,
}
BERT_FIELDS = {k: v for k, v in SETTINGS.items() if k != "seq_len"}
CONFIGS = {
    "bert": {"model_type": "bert", **BERT_FIELDS},
    "roberta": {"model_type": "roberta", **BERT_FIELDS, "max_position_embeddings": 514},
    "distilbert": {
        "model_type": "distilbert",
        "vocab_size": VOCAB,
        "dim": WIDTH,
        "n_layers": LAYERS,
        "n_heads": 4,
        "hidden_dim": 48,
        "activation": "gelu",
    },
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCAB,
        "n_embd": WIDTH,
        "n_layer": LAYERS,
        "n_head": 4,
        "n_inner": 48,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "pad_token_id": None,
    },
}


def make(kind, classes=CLASSES, **changes):
    """A model of random parameters, biases and norms too."""
    family = FAMILIES[kind]
    model = family.make(family.configure({**SETTINGS, "num_labels": classes, **changes}))
    rng = np.random.default_rng(3)
    params = {
        path: jnp.asarray(rng.normal(path.endswith("scale"), 0.1, shape.shape), shape.dtype)
        for path, shape in model.params.items()
    }
    return replace(model, params=params)


def batch(lengths=(SEQ_LEN, 7, 1), seq_len=SEQ_LEN, seed=0, padding=0):
    """Token ids and mask, ``padding`` where there is no token."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, VOCAB, (len(lengths), SEQ_LEN))
    ids = np.pad(ids, ((0, 0), (0, max(0, seq_len - SEQ_LEN))))[:, :seq_len]
    mask = (np.arange(seq_len) < np.asarray(lengths)[:, None]).astype(np.int32)
    return np.where(mask, ids, padding).astype(np.int32), mask


def logits(model, inputs):
    return np.asarray(jax.jit(model.apply)(model.params, *inputs), np.float32)


def published(model):
    """The model's parameters under their published names and in their published layout."""
    family = FAMILIES[model.source["kind"]]
    turned = {"same": lambda x: x, "dense": lambda x: x.T}
    return {
        tensor.name: np.ascontiguousarray(turned[tensor.layout](np.asarray(model.params[path])))
        for path, tensor in family.tensors(family.configure(model.source["config"])).items()
    }


def write(root, kind, tensors, *, shards=1, **fields):
    """A directory with these tensors; ``fields`` change its ``config.json``."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps({**CONFIGS[kind], **fields}))
    if shards == 1:
        save_file(tensors, root / "model.safetensors")
        return root
    where = {}
    for i in range(shards):
        part = dict(list(tensors.items())[i::shards])
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file(part, root / file)
        where |= dict.fromkeys(part, file)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return root
