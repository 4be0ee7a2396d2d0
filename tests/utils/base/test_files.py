"""Files: whole or not at all, and clear words about bad ones."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest

from utils.base.errors import UserError
from utils.base.files import (
    atomic_write,
    check_output,
    check_output_folder,
    file_stamp,
    fingerprint,
    read_json,
    write_json,
)


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "deep" / "er" / "a.json", {"x": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "deep" / "er" / "a.json") == {"x": [1, 2.5, None, "é"]}


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "[1,]", "nonsense"])
def test_malformed_json_names_file_and_place(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=r"bad\.json: not valid JSON \(line 1, column"):
        read_json(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": [1.0, {"b": NaN}]}', r"a\[1\]\.b: is NaN, which JSON can't hold \(line 1, column"),
        ('[0, "NaN",\n -Infinity, NaN]', r"\[2\]: is -Infinity"),
        ("Infinity", "top level: is Infinity"),
        ("NaN]", "not valid JSON"),
    ],
)
def test_nan_is_named_with_its_place(tmp_path, content, said):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=said) as error:
        read_json(tmp_path / "bad.json")
    assert ("cut off" in str(error.value)) == ("not valid" in said)


@pytest.mark.parametrize("content", ['{"a": 1, "b": 2, "a": 1}', '[{"x": {"a" :1, "a":\n{}}}]'])
def test_a_name_that_comes_twice_is_not_lost_silently(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=r"bad\.json: 'a' comes twice in one object"):
        read_json(tmp_path / "bad.json")


@pytest.mark.parametrize("content", ['{"a" : 1, "b\\"": "c\\":", "d\\\\":":"}', '{"\\u0022:": {}}'])
def test_names_are_told_apart_whatever_is_in_them(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    assert read_json(tmp_path / "a.json") == json.loads(content)


@pytest.mark.parametrize("depth", [300, 5000])
def test_json_that_nests_too_deeply_is_refused(tmp_path, depth):
    (tmp_path / "bad.json").write_text("[" * depth + "]" * depth)
    with pytest.raises(UserError, match=r"bad\.json: (nested too deeply|not valid JSON .*depth)"):
        read_json(tmp_path / "bad.json")


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "nowhere.json")


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(target) as file:
        file.write(b"new, but")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_a_process_killed_in_mid_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.json"
    target.write_text('{"old": true}')
    program = textwrap.dedent(
        f"""
        import os, signal
        from utils.base.files import atomic_write
        with atomic_write({str(target)!r}) as file:
            file.write(b"half a ")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    done = subprocess.run([sys.executable, "-c", program])
    assert done.returncode == -signal.SIGKILL
    assert json.loads(target.read_text()) == {"old": True}


def test_fingerprint_ignores_key_order_and_sees_changes(tmp_path):
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint("a", 1) != fingerprint("a", 2)
    file = tmp_path / "f"
    file.write_bytes(b"1")
    before = file_stamp(file)
    file.write_bytes(b"22")
    assert file_stamp(file) != before


def test_outputs_are_refused_where_nothing_can_be_made(tmp_path):
    (tmp_path / "file").touch()
    for name in ("new", "deep/er/new", "file"):
        check_output("--output", tmp_path / name)
    for name in (".", "new", "deep/er"):
        check_output_folder("--output_dir", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # nothing was made
    with pytest.raises(UserError, match="is a folder; give the name of a file"):
        check_output("--output", tmp_path)
    with pytest.raises(UserError, match=r"^--output .*/file/new: .*/file is not a folder"):
        check_output("--output", tmp_path / "file" / "new")
    with pytest.raises(UserError, match="/file is not a folder"):
        check_output_folder("--output_dir", tmp_path / "file")
    with pytest.raises(UserError, match="can't write into /proc"):
        check_output_folder("--output_dir", "/proc/new")
