"""Parts on disk: whole or not there, and only for what they were made of."""

import json

import pytest

from apparate_jax.bench.paper.store import Store, digest_of, fingerprint
from apparate_jax.errors import ConfigError


def test_a_part_comes_back_for_its_fingerprint_only(tmp_path):
    store = Store(tmp_path / "a" / "parts")
    assert store.get("x", "m") is None
    put = store.put("x", "m", {"pair": (1, 2.5)}, 3.0)
    assert put.result == {"pair": [1, 2.5]}
    assert store.get("x", "m") == put and store.get("x", "other") is None
    assert [file.name for file in (tmp_path / "a" / "parts").iterdir()] == ["x.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"fingerprint": "m"}'])
def test_a_damaged_part_is_none(tmp_path, text):
    store = Store(tmp_path)
    store.path("x").write_text(text)
    assert store.get("x", "m") is None


def test_numbers_that_json_lacks_leave_the_old_part(tmp_path):
    store = Store(tmp_path)
    store.put("x", "m", {"a": 1}, 1.0)
    with pytest.raises(ValueError, match="Out of range"):
        store.put("x", "m", {"a": float("nan")}, 1.0)
    assert store.get("x", "m").result == {"a": 1}


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot make .*; name another folder with --out"):
        Store(tmp_path / "file" / "parts")


def test_digests_are_of_contents(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.mkdir()
        (path / "a.txt").write_text("a")
    assert digest_of(one) == digest_of(two) != digest_of(one / "a.txt")
    (two / "b.txt").write_text("")
    assert digest_of(one) != digest_of(two)
    for path in (one, two):  # with a manifest, that alone counts
        (path / "manifest.json").write_text(json.dumps({"of": "both"}))
    assert digest_of(one) == digest_of(two) == digest_of(one / "manifest.json")


def test_fingerprints_tell_parts_settings_and_inputs_apart():
    base = fingerprint("a", {"n": 1, "m": 2}, ["x"])
    assert fingerprint("a", {"m": 2, "n": 1}, ["x"]) == base
    others = [("b", {"n": 1, "m": 2}, ["x"]), ("a", {"n": 2, "m": 2}, ["x"])]
    others += [("a", {"n": 1, "m": 2}, ["y"])]
    assert base not in [fingerprint(*one) for one in others]
