"""Texts: tables in three formats with all that stands in real ones, and fixed-length tokens."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from apparate_jax.core import InputSpec, Model
from apparate_jax.data.text import TextEncoder, read_table
from apparate_jax.errors import DataError
from tests.models.bert_directory import WORDS, tokenizer

LENGTH = 6
PLAIN = InputSpec("input_ids", (LENGTH,), "int32"), InputSpec("attention_mask", (LENGTH,), "int32")


def model_with(made=None, specs=PLAIN):
    content = (made or tokenizer()).to_str().encode()
    return Model("m", lambda p, *x: x[0], {}, specs, assets={"tokenizer.json": content})


def words_of(ids):
    return [WORDS[i] for i in ids]


def test_tokens_are_padded_and_cut_to_the_models_length():
    found = TextEncoder(model_with())(["A good film", "", "bad " * 20])
    assert words_of(found["input_ids"][0]) == ["[CLS]", "a", "good", "film", "[SEP]", "[PAD]"]
    assert words_of(found["input_ids"][1]) == ["[CLS]", "[SEP]"] + ["[PAD]"] * 4
    assert words_of(found["input_ids"][2]) == ["[CLS]", "bad", "bad", "bad", "bad", "[SEP]"]
    assert found["attention_mask"].tolist() == [[1] * 5 + [0], [1, 1, 0, 0, 0, 0], [1] * 6]
    assert {v.dtype for v in found.values()} == {np.dtype(np.int32)}


def test_unknown_words_and_other_scripts():
    ids = TextEncoder(model_with())(["Zürich 電影 \N{PILE OF POO}"])["input_ids"][0]
    assert words_of(ids)[1:4] == ["[UNK]"] * 3


def test_the_models_order_of_inputs_and_its_types():
    specs = (
        InputSpec("attention_mask", (LENGTH,), "int32"),
        InputSpec("token_type_ids", (LENGTH,), "int32"),
        InputSpec("input_ids", (LENGTH,), "int32"),
    )
    found = TextEncoder(model_with(specs=specs))(["good"])
    assert list(found) == ["attention_mask", "token_type_ids", "input_ids"]
    assert found["token_type_ids"].tolist() == [[0] * LENGTH]


def test_the_tokenizers_own_padding():
    made = tokenizer()
    made.enable_padding(pad_id=12, pad_token="awful", length=99)
    found = TextEncoder(model_with(made))(["good"])
    assert words_of(found["input_ids"][0]) == ["[CLS]", "good", "[SEP]"] + [WORDS[12]] * 3


def test_many_texts_are_each_on_their_own():
    texts = [" ".join(np.random.default_rng(i).choice(WORDS[4:], i % 9)) for i in range(50)]
    encode = TextEncoder(model_with())
    together = encode(texts)
    for i, text in enumerate(texts):
        for name, value in encode([text]).items():
            np.testing.assert_array_equal(together[name][i], value[0])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (replace(model_with(), assets={}), r"carries no tokenizer\.json, so it cannot read text"),
        (model_with(specs=()), r"takes \[\], expected token ids"),
        (
            model_with(specs=(InputSpec("x", (3, 3), "int32"),)),
            r"takes \['x'\], expected token ids",
        ),
    ],
)
def test_models_that_take_no_texts(model, message):
    with pytest.raises(DataError, match=message):
        TextEncoder(model)


def test_an_input_that_no_tokenizer_gives():
    specs = (*PLAIN, InputSpec("position_ids", (LENGTH,), "int32"))
    with pytest.raises(DataError, match=r"takes \['position_ids'\], but a tokenizer gives only"):
        TextEncoder(model_with(specs=specs))(["good"])


def test_a_tokenizer_that_is_damaged():
    broken = replace(model_with(), assets={"tokenizer.json": b'{"version": "1.0", "mod'})
    with pytest.raises(DataError, match=r"tokenizer\.json of the model 'm' cannot be read"):
        TextEncoder(broken)


def write(path, rows, columns=("text", "label")):
    """Rows as each format writes them."""
    if path.suffix == ".csv":
        buffer = io.StringIO(newline="")
        csv.writer(buffer).writerows([columns, *rows])
        path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    elif path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        table = {name: [row[i] for row in rows] for i, name in enumerate(columns)}
        parquet.write_table(pa.table(table), path)
    return path


SUFFIXES = (".csv", ".jsonl", ".parquet")
HARD = [
    ('She said "no", twice', 1),
    ("two\nlines, and\r\nmore", 0),
    ("  blanks  ", 1),
    ("tab\tand \\ back'slash", 0),
    ("電影 \N{PILE OF POO} é", 1),
    ("<br />&amp;", 0),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_hard_texts_come_back_as_they_were(tmp_path, suffix):
    path = write(tmp_path / f"d{suffix}", HARD)
    found = read_table(path, ["text"], ["label", "absent"])
    assert found == {"text": [text for text, _ in HARD], "label": [label for _, label in HARD]}


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")) | st.sampled_from('"\n,;\t')).filter(
    lambda text: text.strip() != ""
)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(SUFFIXES), st.lists(TEXT, min_size=1, max_size=6))
def test_any_texts_come_back_as_they_were(tmp_path, suffix, texts):
    # A word in front: what looks like a number or a date everywhere is read as one.
    rows = [(f"text {text}", i) for i, text in enumerate(texts)]
    path = write(tmp_path / f"d{suffix}", rows)
    assert read_table(path, ["text"], [])["text"] == [text for text, _ in rows]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_column_lists_what_is_there(tmp_path, suffix):
    path = write(tmp_path / f"d{suffix}", HARD, ("review", "label"))
    with pytest.raises(
        DataError, match=r"has columns \['review', 'label'\], expected 'text' among"
    ):
        read_table(path, ["text"], ["label"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01", b"\n\n"])
def test_empty_and_binary_files(tmp_path, suffix, content):
    path = tmp_path / f"d{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"d\{suffix}"):
        read_table(path, ["text"], [])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_header_alone(tmp_path, suffix):
    path = tmp_path / f"d{suffix}"
    if suffix == ".csv":
        path.write_text("text,label\n")
    else:
        parquet.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    with pytest.raises(DataError, match="has no rows"):
        read_table(path, ["text"], [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", "text,label\na,1\nb\n"),
        ("d.jsonl", '{"text": "a"}\n{"text": '),
        ("d.jsonl", "[1, 2]\n"),
        ("d.parquet", "PAR1 and no more"),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=r"cannot read .*d\."):
        read_table(tmp_path / name, ["text"], [])
