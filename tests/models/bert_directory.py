"""A tiny BERT classifier as a Hugging Face directory: config, weights, tokenizer, written here."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    *"a bad film good great it poor story was awful".split(),
)
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "vocab_size": len(WORDS),
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "hidden_act": "gelu",
    "max_position_embeddings": 16,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "id2label": {"0": "negative", "1": "neutral", "2": "positive"},
}
CLASSES = 3


def shapes(config=CONFIG):
    """Shape of every tensor by its published name."""
    width, up = config["hidden_size"], config["intermediate_size"]
    found = {
        "bert.embeddings.word_embeddings.weight": (config["vocab_size"], width),
        "bert.embeddings.position_embeddings.weight": (config["max_position_embeddings"], width),
        "bert.embeddings.token_type_embeddings.weight": (config["type_vocab_size"], width),
        "bert.pooler.dense.weight": (width, width),
        "bert.pooler.dense.bias": (width,),
        "classifier.weight": (CLASSES, width),
        "classifier.bias": (CLASSES,),
    }
    norms = ["bert.embeddings.LayerNorm"]
    for i in range(config["num_hidden_layers"]):
        layer = f"bert.encoder.layer.{i}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            found[f"{layer}.attention.{part}.weight"] = (width, width)
            found[f"{layer}.attention.{part}.bias"] = (width,)
        found[f"{layer}.intermediate.dense.weight"] = (up, width)
        found[f"{layer}.intermediate.dense.bias"] = (up,)
        found[f"{layer}.output.dense.weight"] = (width, up)
        found[f"{layer}.output.dense.bias"] = (width,)
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    return found | {f"{norm}.{name}": (width,) for norm in norms for name in ("weight", "bias")}


def tensors(seed=10):
    """Random weights by their published names; with this seed every class is answered."""
    rng = np.random.default_rng(seed)
    return {
        name: (
            rng.normal(1, 0.1, shape) if "Norm.weight" in name else rng.normal(0, 0.5, shape)
        ).astype(np.float32)
        for name, shape in shapes().items()
    }


def tokenizer():
    """Splits at blanks; [CLS] before and [SEP] behind."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def write(directory, weights=None, *, config=CONFIG, with_tokenizer=True):
    """Write the directory; gives its path."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    (root / "config.json").write_text(json.dumps(config))
    save_file(tensors() if weights is None else weights, root / "model.safetensors")
    if with_tokenizer:
        tokenizer().save(str(root / "tokenizer.json"))
    return root


def write_shards(directory, count=3):
    """The same with its weights in several files and an index."""
    root = write(directory)
    (root / "model.safetensors").unlink()
    weights = tensors()
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    where = {tensor: names[i % count] for i, tensor in enumerate(weights)}
    for name in names:
        save_file({t: v for t, v in weights.items() if where[t] == name}, root / name)
    (root / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return root
