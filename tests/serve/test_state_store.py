"""The saved state: replaced whole, read back if it fits, and no failure stops who serves."""

import errno

import pytest

from apparate_jax.serve.state_store import StateStore

STATE = (1, 2.5, ("a", None))


def test_what_was_saved_is_read_back(tmp_path):
    store = StateStore(tmp_path / "new" / "state.npz", "key")
    assert store.load() is None
    store.save(STATE)
    assert StateStore(tmp_path / "new" / "state.npz", "key").load() == STATE
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["state.npz"]


def test_a_state_is_offered_often_and_saved_now_and_then(tmp_path):
    now = [0.0]
    store = StateStore(tmp_path / "state.npz", "key", every_s=5.0, clock=lambda: now[0])
    for now[0], saved in ((4.0, None), (5.0, (5.0,)), (9.0, (5.0,)), (10.0, (10.0,))):
        store.offer((now[0],))
        assert store.load() == saved


def test_a_state_of_something_else_or_a_damaged_one_is_not_used(tmp_path, caplog):
    path = tmp_path / "state.npz"
    StateStore(path, "one").save(STATE)
    assert StateStore(path, "other").load() is None
    assert "other ramps" in caplog.text
    path.write_bytes(path.read_bytes()[:100])
    assert StateStore(path, "one").load() is None
    assert "control starts anew" in caplog.text


def test_a_full_disk_is_said_once_and_the_last_state_stays(tmp_path, caplog, monkeypatch):
    path = tmp_path / "state.npz"
    store = StateStore(path, "key")
    store.save((1,))
    with monkeypatch.context() as patch:

        def full(self, data):
            with open(self, "wb") as file:
                file.write(data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(type(path), "write_bytes", full)
        store.save((2,))
        store.save((3,))
    assert caplog.text.count("No space left") == 1
    assert store.load() == (1,)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]
    store.save((4,))
    assert store.load() == (4,)


@pytest.mark.parametrize("kind", ["directory", "unreadable"])
def test_a_place_that_cannot_be_read_is_no_end(tmp_path, caplog, kind):
    path = tmp_path / "state.npz"
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(path)
    assert StateStore(path, "key").load() is None
    assert "cannot be read" in caplog.text
