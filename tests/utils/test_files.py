"""Files: whole or not at all, and clear words about bad ones."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest

from utils.errors import UserError
from utils.files import atomic_write, file_stamp, fingerprint, read_json, write_json


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "deep" / "er" / "a.json", {"x": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "deep" / "er" / "a.json") == {"x": [1, 2.5, None, "é"]}


@pytest.mark.parametrize("content", ["", "{", '{"a": 1', "[1,]", "nonsense"])
def test_malformed_json_names_file_and_place(tmp_path, content):
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=r"bad\.json: not valid JSON \(line 1, column"):
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
        from utils.files import atomic_write
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
