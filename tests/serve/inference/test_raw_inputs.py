"""Raw inputs: texts and pictures become what the checkpoint says, and what is none is refused."""

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers

from apparate_jax.core import ImagePreprocess, InputSpec
from apparate_jax.data.image import ImageEncoder
from apparate_jax.errors import RequestError
from apparate_jax.models import from_function
from apparate_jax.serve.inference import raw_inputs
from apparate_jax.serve.inference.raw_inputs import raw_inputs_of


def reader(assets=None):
    """Takes token ids and a mask of 4 tokens."""
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "good": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    specs = [InputSpec(name, (4,), "int32") for name in ("input_ids", "attention_mask")]
    own = {"tokenizer.json": tokenizer.to_str().encode()} if assets is None else assets
    made = from_function(lambda p, i, m: (i * m) @ p, np.ones((4, 2)), inputs=specs)
    return replace(made, assets=own)


def viewer():
    """Takes pictures of 8 x 8."""
    how = ImagePreprocess(8, 8, resize=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    return from_function(
        lambda p, x: x.reshape(len(x), -1) @ p,
        np.ones((192, 2), np.float32),
        inputs=[InputSpec("pixels", (8, 8, 3), "float32")],
        image=how,
    )


def prepare(raw, values, max_rows=8):
    return asyncio.run(raw.prepare({raw.name: values}, max_rows))


def objects(*values):
    array = np.empty(len(values), object)
    array[:] = values
    return array


def png(seed=0, size=(12, 9)):
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_texts_become_tokens():
    raw = raw_inputs_of(reader())
    assert raw.name == "text"
    for values in (objects(b"good", b"good bad good good good"), objects(b"good", "x")[:, None]):
        found = prepare(raw, values)
        assert found["input_ids"].shape == (2, 4) and found["input_ids"].dtype == np.int32
        assert found["input_ids"][0].tolist() == [2, 0, 0, 0]
        assert found["attention_mask"][0].tolist() == [1, 0, 0, 0]
    assert prepare(raw, objects(b"", b"a good"))["input_ids"].tolist() == [[0] * 4, [1, 2, 0, 0]]


def test_pictures_become_what_training_saw():
    model = viewer()
    raw = raw_inputs_of(model)
    assert raw.name == "image"
    found = prepare(raw, objects(png(0), png(1)))["pixels"]
    expected = [ImageEncoder(model).decode(png(seed)) for seed in (0, 1)]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.zeros(2, np.int32), "not of datatype BYTES"),
        (objects(b"a", b"b", b"c", b"d").reshape(2, 2), "expected [n] or [n, 1]"),
        (objects(*[b"a"] * 9), "9 examples, expected at most 8"),
        (objects(b"good", b"\xff\xfe"), "text 1 is no UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(values, said):
    with pytest.raises(RequestError) as error:
        prepare(raw_inputs_of(reader()), values)
    assert said in str(error.value)


def test_what_is_no_picture_is_refused(monkeypatch):
    raw = raw_inputs_of(viewer())
    for damaged in (b"", b"GIF89a", png()[:60], png()[:200]):
        with pytest.raises(RequestError, match="'image': picture 1 of"):
            prepare(raw, objects(png(), damaged))
    monkeypatch.setattr(raw_inputs, "MAX_PIXELS", 100)
    with pytest.raises(RequestError, match="9x12 pixels, expected at most 100"):
        prepare(raw, objects(png()))


def test_models_without_preprocessing_have_no_raw_inputs(caplog):
    assert raw_inputs_of(reader(assets={})) is None
    assert not caplog.text
    assert raw_inputs_of(reader(assets={"tokenizer.json": b"{"})) is None
    assert "is served without raw inputs" in caplog.text


def test_only_a_request_of_raw_inputs_alone_is_meant():
    raw = raw_inputs_of(reader())
    assert raw.is_meant({"text": objects(b"a")})
    assert not raw.is_meant({"input_ids": objects(), "attention_mask": objects()})
    assert not raw.is_meant({"text": objects(b"a"), "input_ids": objects()})
