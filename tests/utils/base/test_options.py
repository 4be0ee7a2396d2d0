"""Options: types, defaults and one-line complaints."""

from dataclasses import dataclass

import pytest

from utils.base.options import option, parse_options


@dataclass
class Example:
    name: str = option(explanation="what to call it")
    size: int = option(3, "how many", usual=True)
    rate: float | None = option(None, "how fast")
    splits: list[str] = option(("train",), "which", choices=("train", "val"))
    loud: bool = option(False, "say more")


def test_options_have_types_and_defaults():
    parsed = parse_options(Example, "x", ["--name", "a", "--rate", "0.5", "--loud"])
    assert parsed == Example(name="a", size=3, rate=0.5, splits=["train"], loud=True)
    assert parse_options(Example, "x", ["--name", "a", "--splits", "train", "val"]).splits == [
        "train",
        "val",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--name"],
        ["--name", "a", "--size", "many"],
        ["--name", "a", "--splits", "test"],
        ["--name", "a", "--unknown", "1"],
        ["--name", "a", "--siz", "1"],
    ],
)
def test_wrong_use_is_one_line_and_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_options(Example, "x", arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


@pytest.mark.parametrize(("wish", "all_shown"), [("--help", False), ("--help_all", True)])
def test_help_shows_defaults_and_all_options_only_if_asked(wish, all_shown, capsys):
    with pytest.raises(SystemExit) as end:
        parse_options(Example, "x", [wish])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "what to call it" in said and "how many (default: 3)" in said
    assert ("which (default: ['train'])" in said) == ("--loud" in said) == all_shown
    assert "--no-loud" not in said
