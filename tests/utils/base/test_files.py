"""Files: whole or not at all, and clear words about bad ones."""

from typing import Any

import msgspec
import numpy as np
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


class Example(msgspec.Struct):
    a: float | None


def test_json_survives_a_round_trip(tmp_path):
    path = tmp_path / "deep" / "er" / "a.json"
    write_json(path, {"x": [1, 2.5, None, "é"], "y": np.arange(2), "z": np.float64(0.1)})
    assert path.read_text() == '{"x":[1,2.5,null,"é"],"y":[0,1],"z":0.1}'
    assert read_json(path) == {"x": [1, 2.5, None, "é"], "y": [0, 1], "z": 0.1}
    write_json(path, {"a": [Example(1.5)]}, indent=True)
    assert path.read_text() == '{\n  "a": [\n    {\n      "a": 1.5\n    }\n  ]\n}'
    path.write_text("[]", "utf-8-sig")  # with the mark that Windows programs put first
    assert read_json(path) == []


@pytest.mark.parametrize(
    ("content", "schema", "words"),
    [
        (b'{"a": 1', Example, "not valid JSON (Input data was truncated)"),
        (b'{"a":\n[1,]}', Any, "not valid JSON (trailing comma in array at line 2, column 4)"),
        ("[]".encode("utf-16"), Example, "is text in UTF-16; save it as UTF-8"),
        (b"[" * 5000 + b"]" * 5000, Any, "not valid JSON (maximum recursion depth exceeded"),
        (b"[0,\n -Infinity]", Any, "line 2, column 3: NaN and Infinity are not numbers of JSON)"),
        (b'{"a": 1e999}', Example, "Number out of range - at `$.a`"),
        (b'{"a": "x"}', Example, "Expected `float | null`, got `str` - at `$.a`"),
    ],
)
def test_what_is_no_json_or_does_not_fit_names_file_and_place(tmp_path, content, schema, words):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, schema)
    assert str(error.value).startswith(f"{path}: ") and words in str(error.value)
    assert "\n" not in str(error.value)


def test_json_lines_are_told_apart_whatever_the_schema_says(tmp_path):
    path = tmp_path / "bad.json"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    for schema in (Any, Example, dict[str, str]):
        with pytest.raises(UserError, match="is JSON lines"):
            read_json(path, schema)
    path.write_text('{"a":\n 1}\n\n')
    assert read_json(path, Example) == Example(1.0)


def test_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path):
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError), atomic_write(target) as file:
        file.write(b"new, but")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


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
