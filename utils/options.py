"""Options: an option's type, default and explanation are one unit.

Programs with many options (the two models) declare them as a dataclass, one `option(...)` a field,
and call `parse_options`. Small programs use `ArgumentParser` directly.
"""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

from utils.errors import UserError, complain

Options = TypeVar("Options")
LARGEST = 100_000  # a number that says something of a model's shape


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

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction) and not action.default:
            return action.option_strings[0]  # what is off needs no way to turn it off
        return super()._format_action_invocation(action)


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
    usual: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option; without a default it is required.

    `many` options take one or more values; booleans are flags; an `alias` is a second name. The
    `usual` and the required ones are in `--help`, which fits a screen, the others in `--help_all`.
    """
    metadata = {
        "help": explanation, "choices": choices, "many": many, "alias": alias, "usual": usual
    }  # fmt: skip
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
    # Read ahead of all others: it decides what their help is.
    show_all = "--help_all" in (sys.argv[1:] if arguments is None else arguments)
    count = len(dataclasses.fields(cls))
    parser.add_argument("--help_all", action="help", help=f"show all {count} options and exit")
    for field in dataclasses.fields(cls):
        kind, metadata = field.type, field.metadata
        settings: dict[str, Any] = {"help": argparse.SUPPRESS}
        if show_all or metadata["usual"] or _is_required(field):
            settings["help"] = metadata["help"].replace("%", "%%")
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


def adopt(options: Options, values: Mapping[str, Any], source: object) -> Options:
    """The options with values out of a file; a `UserError` for one of another type."""
    for field in dataclasses.fields(options):
        if field.name not in values:
            continue
        choices = field.metadata["choices"]
        value = values[field.name]
        if not _fits(value, field.type) or (choices and value not in choices):
            value = repr(value)[:60]
            raise UserError(f"{source}: its {field.name} can't be {value}; the file is damaged")
    return dataclasses.replace(options, **values)


def _fits(value: Any, kind: Any) -> bool:
    kinds = set(getattr(kind, "__args__", (kind,)))
    if bool in kinds and value in (0, 1):  # as integers in older files
        return True
    if type(value) is int:
        return bool(kinds & {int, float}) and abs(value) <= LARGEST
    return type(value) in kinds and (type(value) is not float or abs(value) <= LARGEST)


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value_type(kind: Any, many: bool) -> type:
    """`int`, `float` or `str` out of `int | None`, `list[int]` and the like."""
    inner = getattr(kind, "__args__", (kind,)) if many or hasattr(kind, "__args__") else (kind,)
    return next(t for t in inner if t is not type(None))


def _metavar(kind: type) -> str:
    return {int: "N", float: "X", str: "TEXT"}[kind]
