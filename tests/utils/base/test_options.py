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


@pytest.mark.parametrize(("wish", "all_shown"), [("--help", False), ("--help_all", True)])
def test_help_shows_defaults_and_all_options_only_if_asked(wish, all_shown, capsys):
    with pytest.raises(SystemExit) as end:
        parse_options(Example, "x", [wish])
    said = capsys.readouterr().out
    assert end.value.code == 0
    assert "what to call it" in said and "how many (default: 3)" in said
    assert ("which (default: train)" in said) == ("--loud" in said) == all_shown
    assert "--no-loud" not in said
