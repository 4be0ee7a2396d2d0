"""The rooms of the house: who may import whom, read from the imports themselves."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ARROWS = {
    "base": set(),
    "layers": set(),
    "data": {"base"},
    "features": {"base", "data"},
    "evaluation": {"base", "data"},
    "training": {"base", "data", "evaluation"},
    "download": {"base"},
    "viewer": {"base", "evaluation"},
    "simulation": {"base", "data"},
    "search": {"base", "data", "evaluation", "features", "training"},
}
MODELS = ("VSLNet", "ReLER", "GroundNLQ")
ROOMS = sorted(
    folder.name for folder in (ROOT / "utils").iterdir() if (folder / "__init__.py").is_file()
)
PROGRAMS = sorted(file.stem for file in (ROOT / "utils").glob("[!_]*.py"))


def imported(file):
    """Every module of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            if name.split(".")[0] in ("utils", *MODELS):
                yield name


def rooms_of(file):
    names = [name.split(".") for name in imported(file)]
    return {parts[1] for parts in names if parts[0] == "utils" and len(parts) > 1}


def test_the_rooms_are_the_known_ones():
    assert sorted(ARROWS) == ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_below_it(room):
    for file in (ROOT / "utils" / room).rglob("*.py"):
        assert rooms_of(file) <= ARROWS[room] | {room}, file
        assert not any(name.split(".")[0] in MODELS for name in imported(file)), file


def test_no_module_imports_itself_by_way_of_others():
    files = [file for package in ("utils", *MODELS) for file in (ROOT / package).rglob("*.py")]
    modules = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in files}
    graph = {name: {*imported(file)} & modules.keys() for name, file in modules.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_only_the_table_of_models_imports_by_a_name_of_its_own_making():
    files = [file for package in ("utils", *MODELS) for file in (ROOT / package).rglob("*.py")]
    importing = [file for file in files if "import_module" in file.read_text()]
    assert importing == [ROOT / "utils" / "search" / "models.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_is_in_it(room):
    assert ast.get_docstring(ast.parse((ROOT / "utils" / room / "__init__.py").read_text()))
    lines = (ROOT / "utils" / "README.md").read_text().splitlines()
    (row,) = (line for line in lines if line.startswith(f"| `{room}/` |"))
    assert row.endswith(f"| {', '.join(sorted(ARROWS[room])) or '-'} |")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_imports_no_other(program):
    file = ROOT / "utils" / f"{program}.py"
    assert "__main__" in file.read_text(), f"{file}: not a program, it belongs into a room"
    assert rooms_of(file) <= set(ROOMS)
    assert f"`{program}.py`" in (ROOT / "utils" / "README.md").read_text()


@pytest.mark.parametrize("model", MODELS)
def test_a_model_imports_rooms_but_neither_search_nor_another_model(model):
    for file in (ROOT / model).rglob("*.py"):
        assert rooms_of(file) <= set(ROOMS) - {"search"}, file
        others = set(MODELS) - {model}
        assert not any(name.split(".")[0] in others for name in imported(file)), file
