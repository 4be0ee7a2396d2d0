"""Options: an option's type, default and explanation are one unit.

Programs with many options (the two models) declare them as a dataclass, one `option(...)` a field,
and call `parse_options`. Small programs use `ArgumentParser` directly.
"""

import argparse
import dataclasses
import shutil
import sys
from typing import Any, NoReturn, TypeVar

from utils.errors import complain

Options = TypeVar("Options")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults shown, as wide as the terminal allows, short enough for one screen."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, 140)
        super().__init__(prog, max_help_position=34, width=width)

    def _get_help_string(self, action: argparse.Action) -> str:
        unsaid = action.default is None or action.default is False or action.default == []
        if unsaid or action.default is argparse.SUPPRESS or not action.option_strings:
            return action.help or ""
        return f"{action.help or ''} (default: %(default)s)"


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` whose complaints are one line, with exit code 2."""

    def __init__(self, **settings: Any):
        settings.setdefault("formatter_class", HelpFormatter)
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        complain(f"{message}; see {self.prog} --help")
        sys.exit(2)


def option(
    default: Any = dataclasses.MISSING,
    explanation: str = "",
    *,
    choices: tuple | None = None,
    many: bool = False,
    alias: str | None = None,
) -> Any:
    """A dataclass field that is also a command-line option; without a default it is required.

    `many` options take one or more values; booleans are flags; an `alias` is a second name.
    """
    metadata = {"help": explanation, "choices": choices, "many": many, "alias": alias}
    if many and default is not dataclasses.MISSING:
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def parse_options(
    cls: type[Options], description: str, arguments: list[str] | None = None
) -> Options:
    """Build `cls` from the command line; its `__post_init__` refuses illegal combinations."""
    required = [f for f in dataclasses.fields(cls) if _is_required(f)]
    usage = "%(prog)s" + "".join(f" --{field.name} NAME" for field in required) + " [options]"
    parser = ArgumentParser(description=description, usage=usage)
    for field in dataclasses.fields(cls):
        kind, metadata = field.type, field.metadata
        settings: dict[str, Any] = {"help": metadata["help"].replace("%", "%%")}
        if _is_required(field):
            settings["required"] = True
        elif field.default is not dataclasses.MISSING:
            settings["default"] = field.default
        else:
            settings["default"] = field.default_factory()
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["type"] = _value_type(kind, metadata["many"])
            settings["metavar"] = (
                "{" + ",".join(map(str, metadata["choices"])) + "}"
                if (metadata["choices"])
                else _metavar(settings["type"])
            )
            settings["choices"] = metadata["choices"]
            if metadata["many"]:
                settings["nargs"] = "+"
        names = [field.name] + ([metadata["alias"]] if metadata["alias"] else [])
        parser.add_argument(*(f"--{name}" for name in names), dest=field.name, **settings)
    return cls(**vars(parser.parse_args(arguments)))


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value_type(kind: Any, many: bool) -> type:
    """`int`, `float` or `str` out of `int | None`, `list[int]` and the like."""
    inner = getattr(kind, "__args__", (kind,)) if many or hasattr(kind, "__args__") else (kind,)
    return next(t for t in inner if t is not type(None))


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]
