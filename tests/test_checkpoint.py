from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from apparate_jax.checkpoint import (
    Checkpoint,
    check_sites,
    is_checkpoint,
    load_checkpoint,
    save_checkpoint,
    save_ramps,
)
from apparate_jax.core import InputSpec, Model
from apparate_jax.errors import CheckpointError, ModelError
from apparate_jax.graph import trace
from apparate_jax.models import from_nnx, load_model
from apparate_jax.ramps.heads import HEAD_KINDS, HeadKind, Ramp
from apparate_jax.ramps.train import Validation

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def apply(params, x):
    x = jnp.tanh(x @ params["layers"][0] * params["scale"])
    x = jnp.tanh(x @ params["layers"][1].astype(jnp.float32))
    return x @ params["head"]


def make_model(seed=1, width=8):
    """The factory that checkpoints of these tests refer to; other weights than those saved."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    params = {
        "layers": [normal(4, width), normal(width, 6).astype(jnp.bfloat16)],
        "head": normal(6, 3),
        "scale": 0.5 + seed,
        "unused": jnp.zeros((0, 2)),
    }
    return Model(
        "tiny",
        apply,
        params,
        (InputSpec("x", (4,), "float32", -1.0, 1.0),),
        labels=("a", "b", "zürich"),
        source={"kind": "python", "reference": "tests.test_checkpoint:make_model"},
        assets={"tokenizer.json": b"{}", "empty.txt": b""},
    )


def trained(seed=5):
    """A checkpoint with everything in it."""
    model = make_model(seed)
    sites = trace(model.apply, model.params, X).sites
    rng = np.random.default_rng(seed)
    ramps = tuple(
        Ramp(
            site=site.index,
            name=site.name,
            kind="identity",
            params={
                "kernel": jnp.asarray(rng.normal(size=(site.shape[-1], 3)), jnp.float32),
                "bias": jnp.asarray(rng.normal(size=3), jnp.float32),
            },
            agreement=0.1 + site.index / 3,
            temperature=1.5,
        )
        for site in sites
    )
    validation = Validation(
        sites=tuple(ramp.site for ramp in ramps),
        rows=np.arange(7),
        errors=rng.uniform(size=(7, len(ramps))).astype(np.float32),
        predictions=rng.integers(0, 3, (7, len(ramps))).astype(np.int32),
        labels=rng.integers(0, 3, 7).astype(np.int32),
    )
    training = {"data": "reviews.csv", "examples": 40}
    return Checkpoint(model, sites, ramps, (sites[-1].index,), training, validation)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(path, trained())
    return path


@pytest.fixture
def copied(saved, tmp_path):
    """A copy to damage."""
    for source in saved.rglob("*"):
        if source.is_file():
            target = tmp_path / "checkpoint" / source.relative_to(saved)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    return tmp_path / "checkpoint"


def assert_same_tree(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert type(one) is type(other) and jnp.result_type(one) == jnp.result_type(other)
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_everything_comes_back(saved):
    found, expected = load_checkpoint(saved), trained()
    for name in ("name", "inputs", "labels", "mask", "pooling", "source", "assets"):
        assert getattr(found.model, name) == getattr(expected.model, name), name
    assert_same_tree(found.model.params, expected.model.params)
    np.testing.assert_array_equal(
        found.model.apply(found.model.params, X), expected.model.apply(expected.model.params, X)
    )
    assert found.sites == expected.sites
    assert found.active == expected.active and found.training == expected.training
    for one, other in zip(found.ramps, expected.ramps, strict=True):
        assert replace(one, params={}) == replace(other, params={})
        assert_same_tree(dict(one.params), dict(other.params))
    for name in ("rows", "errors", "predictions", "labels", "agrees"):
        np.testing.assert_array_equal(
            getattr(found.validation, name), getattr(expected.validation, name)
        )
    assert found.validation.sites == expected.validation.sites


def test_a_checkpoint_without_ramps(tmp_path):
    expected = Checkpoint(make_model(), trained().sites)
    save_checkpoint(tmp_path / "new" / "place", expected)
    found = load_checkpoint(tmp_path / "new" / "place")
    assert found.ramps == () and found.active == () and found.validation is None
    assert found.training is None and found.sites == expected.sites


def test_nnx_models_come_back(tmp_path):
    def make(seed):
        rngs = nnx.Rngs(seed)
        layers = nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs)
        return from_nnx(nnx.Sequential(*layers), inputs=[X], source={"seed": 2})

    save_checkpoint(tmp_path / "c", Checkpoint(make(1), ()))
    found = load_checkpoint(
        tmp_path / "c", rebuild_model=lambda source, _: make(source["seed"])
    ).model
    expected = make(1)
    np.testing.assert_array_equal(found.apply(found.params, X), expected.apply(expected.params, X))


def test_the_factory_of_a_user_is_called_again(tmp_path):
    model = load_model("tests.test_checkpoint:make_model")
    save_checkpoint(tmp_path / "c", Checkpoint(model, ()))
    assert_same_tree(load_checkpoint(tmp_path / "c").model.params, model.params)


def test_saving_again_replaces_the_old_one_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, trained(5))
    save_checkpoint(path, replace(trained(6), active=()))
    assert load_checkpoint(path).active == ()
    assert_same_tree(load_checkpoint(path).model.params, make_model(6).params)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c"]


def test_a_save_that_fails_keeps_the_old_one(copied):
    broken = replace(trained(6), model=replace(make_model(6), assets={"../escape": b""}))
    with pytest.raises(CheckpointError, match=r"'\.\./escape' is no plain file name"):
        save_checkpoint(copied, broken)
    assert_same_tree(load_checkpoint(copied).model.params, make_model(5).params)
    assert [entry.name for entry in copied.parent.iterdir()] == ["checkpoint"]


def test_a_crash_between_the_renames_says_where_the_old_one_is(copied):
    copied.rename(copied.parent / ".checkpoint.old.12-ab")
    with pytest.raises(CheckpointError, match=r"mv .*\.checkpoint\.old\.12-ab"):
        load_checkpoint(copied)


def test_what_is_no_checkpoint_is_never_overwritten(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    with pytest.raises(CheckpointError, match="is no checkpoint: name another place"):
        save_checkpoint(tmp_path / "mine", trained())
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "years of work"
    for place in (tmp_path / "mine" / "thesis.tex", tmp_path / "mine" / "thesis.tex" / "below"):
        with pytest.raises(CheckpointError, match="thesis"):
            save_checkpoint(place, trained())
    (tmp_path / "empty").mkdir()
    save_checkpoint(tmp_path / "empty", trained())
    assert is_checkpoint(tmp_path / "empty") and not is_checkpoint(tmp_path / "mine")


def files_of(path):
    return sorted(str(f.relative_to(path)) for f in path.rglob("*") if f.is_file())


def test_every_damage_to_any_file_is_an_error(copied):
    names = files_of(copied)
    assert len(names) > 8
    for name in names:
        path = copied / name
        raw = path.read_bytes()
        damages = {raw[: len(raw) // 2], raw[:-1], raw + b"\0", b""}
        for position in {0, len(raw) // 3, len(raw) // 2, len(raw) - 1} if raw else ():
            flipped = bytes([raw[position] ^ 1 << position % 8])
            damages.add(raw[:position] + flipped + raw[position + 1 :])
        for damage in damages - {raw}:
            path.write_bytes(damage)
            with pytest.raises(CheckpointError, match=r"damaged|cannot be read"):
                load_checkpoint(copied)
        path.unlink()
        with pytest.raises(CheckpointError, match=r"lacks|interrupted"):
            load_checkpoint(copied)
        path.write_bytes(raw)
    load_checkpoint(copied)


def test_files_that_nobody_listed_are_not_read(copied):
    (copied / "assets" / "vocab.txt").write_text("not ours")
    assert sorted(load_checkpoint(copied).model.assets) == ["empty.txt", "tokenizer.json"]


@pytest.mark.parametrize(
    ("rebuilt", "message"),
    [
        (lambda source, _: make_model(width=9), r"2 parameters gone, such as .* 2 new, such as"),
        (lambda source, _: replace(make_model(), params={}), "5 parameters gone"),
        (
            lambda source, _: replace(make_model(), params={**make_model().params, "more": X}),
            r"1 new, such as \['more'\] \[3, 4\] float32",
        ),
    ],
)
def test_a_model_that_changed_is_refused(saved, rebuilt, message):
    with pytest.raises(CheckpointError, match=f"another model than 'tiny' .*{message}"):
        load_checkpoint(saved, rebuild_model=rebuilt)


def test_a_model_that_cannot_be_made_again(saved):
    def rebuilt(source, assets):
        raise ModelError("no module named gone")

    with pytest.raises(CheckpointError, match="cannot be made again: no module named gone"):
        load_checkpoint(saved, rebuild_model=rebuilt)


def test_a_head_kind_that_is_not_there_when_loading(tmp_path, monkeypatch):
    whole = trained()
    with monkeypatch.context() as during:
        during.setitem(HEAD_KINDS, "mine", HeadKind(*HEAD_KINDS["identity"]))
        ramp = replace(whole.ramps[0], kind="mine")
        save_checkpoint(tmp_path / "c", replace(whole, ramps=(ramp,), active=()))
        assert load_checkpoint(tmp_path / "c").ramps[0].kind == "mine"
    with pytest.raises(CheckpointError, match=r"kind or style \['mine'\].*HEAD_KINDS"):
        load_checkpoint(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: replace(m, source={"fn": apply}), "JSON values"),
        (lambda m: replace(m, params={"key": jax.random.key(0)}), "random keys"),
        (lambda m: replace(m, params={"name": "text"}), "no array"),
    ],
)
def test_what_cannot_be_saved_is_said_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(CheckpointError, match=message):
        save_checkpoint(tmp_path / "c", Checkpoint(change(make_model()), ()))
    assert not list(tmp_path.iterdir())


def test_ramps_and_active_sites_must_fit():
    whole = trained()
    with pytest.raises(CheckpointError, match="active sites"):
        replace(whole, ramps=())
    with pytest.raises(CheckpointError, match="ramps are at sites"):
        replace(whole, ramps=whole.ramps[::-1])
    with pytest.raises(CheckpointError, match="ramps are at sites"):
        replace(whole, sites=(), active=())


def test_sites_of_the_traced_model_are_compared(saved):
    found = load_checkpoint(saved)
    again = trace(found.model.apply, found.model.params, X[:2]).sites
    check_sites(found, again)
    with pytest.raises(CheckpointError, match="2 sites, the model now has 1"):
        check_sites(found, again[:1])
    with pytest.raises(CheckpointError, match="float16"):
        check_sites(found, (replace(again[0], dtype="float16"), again[1]))


def test_lines_of_source_may_move(saved):
    found = load_checkpoint(saved)
    assert [site.name.split(":")[0] for site in found.sites] == ["test_checkpoint.py"] * 2
    check_sites(found, tuple(replace(s, name=f"test_checkpoint.py:{s.index}") for s in found.sites))
    with pytest.raises(CheckpointError, match=r"other\.py.* instead of .*test_checkpoint\.py"):
        check_sites(found, (replace(found.sites[0], name="other.py:1"), found.sites[1]))


def files(path):
    return {f.relative_to(path): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_new_ramps_take_the_models_files_over(copied):
    before = load_checkpoint(copied)
    inodes = {f.name: f.stat().st_ino for f in (copied / "params").rglob("*") if f.is_file()}
    other = trained(6)
    without_params = replace(before.model, params=None)
    save_ramps(copied, replace(before, model=without_params, ramps=other.ramps, active=()))
    found = load_checkpoint(copied)
    assert_same_tree(found.model.params, before.model.params)
    assert found.model.assets == before.model.assets
    assert found.active == () and found.sites == before.sites
    assert_same_tree([r.params for r in found.ramps], [r.params for r in other.ramps])
    assert {
        f.name: f.stat().st_ino for f in (copied / "params").rglob("*") if f.is_file()
    } == inodes
    assert [entry.name for entry in copied.parent.iterdir()] == [copied.name]


def test_new_ramps_are_refused_by_a_checkpoint_that_was_replaced(copied):
    read = load_checkpoint(copied)
    save_checkpoint(copied, trained(6))
    there = files(copied)
    with pytest.raises(CheckpointError, match=r"replaced since: train them again"):
        save_ramps(copied, read)
    assert files(copied) == there


def test_new_ramps_that_cannot_be_saved_leave_the_old_ones(copied, monkeypatch):
    read, there = load_checkpoint(copied), files(copied)

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr("apparate_jax.checkpoint.write_arrays", fail)
    with pytest.raises(CheckpointError, match="the disk is full"):
        save_ramps(copied, read)
    assert files(copied) == there
    assert [entry.name for entry in copied.parent.iterdir()] == [copied.name]
