"""``apparate inject``: a checkpoint with the sites of a model, or one line that says why not."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from apparate_jax.checkpoint import load_checkpoint
from tests.cli import tiny
from tests.models import bert_directory


@pytest.fixture
def bert(tmp_path):
    return bert_directory.write(tmp_path / "bert")


def names_in(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_factory(apparate, tmp_path):
    done = apparate("inject", tiny.REFERENCE, "-o", tmp_path / "c", "--json", "-")
    assert done.status == 0
    result = done.json
    assert result["model"] == "tiny" and result["checkpoint"] == str(tmp_path / "c")
    assert [site["shape"] for site in result["sites"]] == [[2, 8], [2, 8]]
    depths = [site["depth"] for site in result["sites"]]
    assert 0 < depths[0] < depths[1] < 1
    assert result["cut_vertices"] >= 2
    (gap,) = [gap for gap in result["large_gaps"] if gap["after"]]
    assert gap["cost_frac"] == pytest.approx(depths[1] - depths[0], abs=1e-4)
    saved = load_checkpoint(tmp_path / "c")
    assert [s.name for s in saved.sites] == [s["name"] for s in result["sites"]]
    assert saved.model.source == {"kind": "python", "reference": tiny.REFERENCE}
    np.testing.assert_array_equal(saved.model.params["head"], tiny.mlp().params["head"])
    assert names_in(tmp_path) == ["c"]


def test_for_people(apparate, tmp_path):
    done = apparate("inject", tiny.REFERENCE, "-o", tmp_path / "c", "--json", tmp_path / "r.json")
    assert "tiny: 2 sites" in done.out and "batchx8" in done.out
    assert f"next: apparate train-ramps {tmp_path}/c --data" in " ".join(done.out.split())
    assert json.loads((tmp_path / "r.json").read_text())["model"] == "tiny"
    # Progress is on standard error, in plain lines.
    assert done.err.startswith("loading, tracing and saving the model: 3/3")
    assert "\x1b" not in done.out + done.err


def test_a_directory_with_its_tokenizer_and_length(apparate, tmp_path, bert):
    done = apparate("inject", bert, "-o", tmp_path / "c", "--seq-len", 7, "--json", "-")
    assert done.status == 0 and "WARNING" not in done.err
    assert [site["shape"] for site in done.json["sites"]] == [[2, 7, 8]] * 4 + [[2, 8]]
    model = load_checkpoint(tmp_path / "c").model
    assert model.name == "bert" and model.labels == ("negative", "neutral", "positive")
    assert {spec.shape for spec in model.inputs} == {(7,)}
    assert model.assets["tokenizer.json"] == (bert / "tokenizer.json").read_bytes()


def test_an_adapter_on_a_base_that_is_given(apparate, tmp_path, bert):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": "no-such-base", "r": 2, "lora_alpha": 4})
    )
    save_file({}, adapter / "adapter_model.safetensors")
    done = apparate("inject", adapter, "-o", tmp_path / "c")
    assert done.status == 1 and "needs its base model 'no-such-base'" in done.error
    assert not (tmp_path / "c").exists()
    assert apparate("inject", adapter, "-o", tmp_path / "c", "--base", bert).status == 0
    assert load_checkpoint(tmp_path / "c").model.name == "adapter"


def test_random_weights_are_not_kept_secret(apparate, tmp_path):
    done = apparate("inject", "minilm-l6", "-o", tmp_path / "c", "--seq-len", 8, "--json", "-")
    assert done.status == 0
    assert "WARNING: minilm-l6 has random weights" in done.err
    assert len(done.json["sites"]) == 12


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nosuch", "unknown model 'nosuch': expected a directory with config.json"),
        ("minilm-16", "did you mean 'minilm-l6' or 'minilm-l12'"),
        ("BERT-BASE", "one of minilm-l6"),
        ("no/such/directory", "no model directory at no/such/directory"),
        ("tests.cli.tiny:nope", "has no attribute 'nope'): expected package.module:factory"),
        ("tests.cli.nope:mlp", "No module named 'tests.cli.nope'): expected package.module:"),
        (":mlp", "cannot import ':mlp'"),
        ("tests.cli.tiny:NUMBER", "is a int, expected a function"),
        ("tests.cli.tiny:nothing", r"returned (NoneType), expected a Model, (nnx module, inputs)"),
        ("tests.cli.tiny:module_alone", "returned (Linear), expected a Model"),
        ("tests.cli.tiny:fails", "failed with RuntimeError: the weights server is down (tiny.py:"),
        ("tests.cli.tiny:undescribed", "the inputs of 'undescribed' are not described: give"),
    ],
)
def test_models_that_cannot_be_made(apparate, tmp_path, reference, message):
    done = apparate("inject", reference, "-o", tmp_path / "c", "--json", tmp_path / "r.json")
    assert (done.status, done.out) == (1, "")
    assert message in done.error
    assert names_in(tmp_path) == []


def test_a_model_without_a_site_shows_its_own_line(apparate, tmp_path):
    done = apparate("inject", "tests.cli.tiny:single_layer", "-o", tmp_path / "c")
    assert (done.status, done.out) == (1, "")
    assert "error: the model is a single layer, at tiny.py:" in done.err
    assert "dot_general" in done.err and "Traceback" not in done.err
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--classes", 4), "['classes'] cannot be set for the factory 'tests.cli.tiny:mlp'"),
        (("--seq-len", 4), "['seq_len'] cannot be set for the factory"),
    ],
)
def test_settings_that_would_be_ignored(apparate, tmp_path, words, message):
    done = apparate("inject", tiny.REFERENCE, "-o", tmp_path / "c", *words)
    assert done.status == 1 and message in done.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--seq-len", 0), "seq_len is 0, expected 1 to"),
        (("--seq-len", 17), "seq_len is 17, expected 1 to"),
    ],
)
def test_settings_out_of_range(apparate, tmp_path, bert, words, message):
    done = apparate("inject", bert, "-o", tmp_path / "c", *words)
    assert done.status == 1 and message in done.error
    assert names_in(tmp_path) == ["bert"]


def without(name):
    def damage(bert):
        (bert / name).unlink()

    return damage


def truncated(bert):
    file = bert / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def garbage(bert):
    (bert / "model.safetensors").write_bytes(b"\x00" * 50)


def another_shape(bert):
    weights = load_file(bert / "model.safetensors")
    weights["bert.embeddings.word_embeddings.weight"] = np.zeros((3, 8), np.float32)
    del weights["bert.encoder.layer.1.output.dense.bias"]
    save_file(weights, bert / "model.safetensors")


def no_head(bert):
    weights = load_file(bert / "model.safetensors")
    save_file(
        {n: v for n, v in weights.items() if "classifier" not in n}, bert / "model.safetensors"
    )


def no_json(bert):
    (bert / "config.json").write_text("{'model_type':")


def another_type(bert):
    (bert / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("model.safetensors"), "expected a safetensors file"),
        (without("config.json"), "config.json: No such file or directory"),
        (truncated, "is damaged or truncated ("),
        (garbage, "is damaged or truncated (50 bytes"),
        (another_shape, "missing bert.encoder.layer.1.output.dense.bias [8]; bert.embeddings."),
        (no_head, "holds a backbone without classifier.weight: give a model that was fine-tuned"),
        (no_json, "config.json is no JSON"),
        (another_type, "model_type is 'no-such-type'"),
    ],
)
def test_directories_that_are_not_whole(apparate, tmp_path, bert, damage, message):
    damage(bert)
    done = apparate("inject", bert, "-o", tmp_path / "c", "--json", "-")
    assert (done.status, done.out) == (1, "")
    assert message in done.error
    assert names_in(tmp_path) == ["bert"]


def test_a_checkpoint_is_no_model(apparate, trained, tmp_path):
    done = apparate("inject", trained, "-o", tmp_path / "c", "--json", "-")
    assert (done.status, done.out) == (1, "")
    assert done.error.startswith(f"{trained} is a checkpoint already, expected a model")
    assert names_in(tmp_path) == []


def test_places_that_are_taken(apparate, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for place in ("thesis.tex", "mine", "thesis.tex/c"):
        done = apparate("inject", tiny.REFERENCE, "-o", tmp_path / place, "--json", "-")
        assert (done.status, done.out) == (1, "")
        assert str(tmp_path / place) in done.error
    assert names_in(tmp_path) == ["mine", "thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_result_that_cannot_be_written_is_said_before_the_work(apparate, tmp_path):
    (tmp_path / "file").write_text("kept")
    for where, message in (
        (tmp_path, "it is a directory"),
        (tmp_path / "file" / "r.json", "no dir"),
    ):
        done = apparate("inject", tiny.REFERENCE, "-o", tmp_path / "c", "--json", where)
        assert (done.status, done.out) == (1, "")
        assert f"cannot write {where}" in done.error and message in done.error
    assert names_in(tmp_path) == ["file"] and (tmp_path / "file").read_text() == "kept"
