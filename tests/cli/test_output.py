"""Files that are whole or not there, text that is shown as it is, progress for both readers."""

import json
import os
import re
import stat

import pytest

from apparate_cli.output import PLAIN_EVERY_S, Output, check_place, new_file, phases, stderr
from apparate_jax.errors import ConfigError


def test_json_goes_to_its_file_and_the_rest_is_shown(tmp_path, capsys):
    path = tmp_path / "new" / "place" / "r.json"
    output = Output(str(path))
    output.show("table")
    output.write({"model": "zürich", "n": 1})
    assert json.loads(path.read_text()) == {"model": "zürich", "n": 1}
    assert capsys.readouterr() == ("table\n", "")
    assert [p.name for p in path.parent.iterdir()] == ["r.json"]


def test_standard_output_for_json_holds_nothing_else(capsys):
    output = Output("-")
    output.show("table")
    output.write({"n": 1})
    assert json.loads(capsys.readouterr().out) == {"n": 1}


def test_without_json_nothing_is_written(capsys):
    output = Output(None)
    output.show("[bold]x[/bold] :b:")
    output.write({"n": 1})
    assert capsys.readouterr().out == "[bold]x[/bold] :b:\n"


def test_a_result_that_is_no_json_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        Output(str(path)).write({"n": object()})
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as file:
        file.write_text("half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with new_file(path) as file:
        file.write_text("new")
    assert path.read_text() == "new" and len(list(tmp_path.iterdir())) == 1


def test_a_link_stays_one(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with new_file(tmp_path / "link") as file:
        file.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"


def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        check_place(pipe)
        with new_file(pipe) as file:
            file.write_text("through")
        assert os.read(reader, 100) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and len(list(tmp_path.iterdir())) == 1


def test_a_write_that_fails(tmp_path):
    (tmp_path / "file").write_text("kept")
    where = tmp_path / "file" / "below"
    with pytest.raises(ConfigError, match=f"cannot write {re.escape(str(where))}"), new_file(where):
        pass
    with pytest.raises(ConfigError, match=r"cannot write .+long"), new_file(tmp_path / "long") as f:
        (f.parent / ("x" * 300)).write_text("the name is too long")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_places_are_checked_before_the_work(tmp_path):
    (tmp_path / "file").write_text("kept")
    for good in ("file", "new", "new/deep/r.json"):
        check_place(tmp_path / good)
    for bad, message in (("", "is a directory"), ("file/r.json", "file is no directory")):
        with pytest.raises(ConfigError, match=message):
            check_place(tmp_path / bad)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_places_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match="permission which this user lacks"):
        check_place(tmp_path / "r.json")


def test_plain_lines_say_the_end_and_something_now_and_then(capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with phases() as phase:
        step = phase("training")
        for done, at in ((1, 1.0), (2, PLAIN_EVERY_S), (3, PLAIN_EVERY_S + 1), (9, 7.0)):
            now[0] = 100.0 + at
            step(done, 9, "epoch")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "training: 2/9 (5.0 s)\ntraining: 9/9 (7.0 s)\n"


def test_bars_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert stderr().is_terminal
    with phases() as phase:
        phase("training")(3, 9, "epoch")
    out, err = capsys.readouterr()
    assert out == "" and "training" in err and "3/9" in err


def test_bars_that_are_done_may_be_hidden(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with phases(keep=False) as phase:
        phase("tuning")(9, 9, "epoch")
        phase("training")(3, 9, "epoch")
    _, err = capsys.readouterr()
    assert "3/9" in err and "9/9" not in err
