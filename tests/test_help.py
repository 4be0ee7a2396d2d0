"""`--help` of every program fits a screen."""

import importlib
import sys
from dataclasses import fields

import pytest

import ReLER.options
import VSLNet.options
from utils.base.options import parse_options

LINES, COLUMNS = 40, 100  # of a screen
MODELS = {"VSLNet": VSLNet.options.Options, "ReLER": ReLER.options.Options}


def programs(root):
    """Modules that are run as a file."""
    files = [*root.glob("utils/*.py"), *root.glob("*/main.py")]
    return [
        f"{file.parent.name}.{file.stem}"
        for file in sorted(files)
        if '__name__ == "__main__"' in file.read_text()
    ]


def test_help_fits_a_screen(root, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(COLUMNS))
    names = programs(root)
    assert {"utils.check_data", "VSLNet.main", "ReLER.main"} <= set(names)
    for name in names:
        monkeypatch.setattr(sys, "argv", [name, "--help"])
        with pytest.raises(SystemExit) as end:
            importlib.import_module(name).main()
        said = capsys.readouterr().out.splitlines()
        assert end.value.code == 0 and said[0].startswith("usage: "), name
        assert len(said) <= LINES and max(map(len, said)) <= COLUMNS, name


@pytest.mark.parametrize("model", MODELS)
def test_no_option_of_a_model_is_left_out_of_all_help(model, capsys):
    with pytest.raises(SystemExit) as end:
        parse_options(MODELS[model], model, ["--help_all"])
    said = capsys.readouterr().out
    assert end.value.code == 0
    lacking = [f.name for f in fields(MODELS[model]) if f"\n  --{f.name}" not in said]
    assert not lacking
