"""Options: an option's type, default and explanation are one unit.

Programs with many options (the two models) declare them as a dataclass, one `option(...)` a field,
and call `parse_options`. Small programs use `ArgumentParser` directly.
"""

import argparse
import dataclasses
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar, get_args, get_origin

import msgspec

from utils.base.errors import UserError, complain

Options = TypeVar("Options")
SEEDS = "[0, 4294967295]"  # what NumPy takes


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults shown, as wide as the terminal allows, short enough for one screen."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, 140)
        super().__init__(prog, max_help_position=34, width=width)

    def _get_help_string(self, action: argparse.Action) -> str:
        is_obvious = action.default is None or action.default is False or action.default == []
        if is_obvious or action.default is argparse.SUPPRESS or not action.option_strings:
            return action.help or ""
        return f"{action.help or ''} (default: %(default)s)"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest == "help":
            return super()._format_action_invocation(action)
        name = action.option_strings[0]  # aliases are in the explanation
        if isinstance(action, argparse.BooleanOptionalAction):
            # What is off needs no way to turn it off.
            return f"{name}, --no-{name[2:]}" if action.default else name
        if action.nargs == 0:
            return name
        return f"{name} {self._format_args(action, action.dest.upper())}"


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
    aliases: tuple[str, ...] = (),
    usual: bool = False,
    within: str | None = None,
    free: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option; without a default it is required.

    Options that are lists take one or more values; booleans are flags; `aliases` are further names.
    The `usual` and the required ones are in `--help`, which fits a screen, the others in
    `--help_all`.
    A number must lie in the interval `within`, by default the largest in `check_options`.
    A `free` option may change when a run is continued.
    """
    metadata = {
        "help": explanation,
        "choices": choices,
        "aliases": aliases,
        "usual": usual,
        "within": within,
        "free": free,
    }
    if isinstance(default, tuple):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Ignored(NamedTuple):
    """A published option that is accepted though nothing here depends on it.

    `fits(value, options)` is false for a value that would change what published code computes.
    """

    name: str
    kind: Any  # as of a field: bool for a flag, list[int] for one or more numbers
    why: str
    fits: Callable[[Any, Any], bool] = lambda value, options: True

    def check(self, value: Any, options: Any, where: str = "") -> None:
        """Raises UserError if the value does not fit the options."""
        if not self.fits(value, options):
            raise UserError(f"{where}--{self.name} {value} is not supported: {self.why}")


def check_options(options: Any) -> None:
    """Raises UserError for a value of another type, not among the choices or out of its interval.

    Numbers are at least 0 and whole ones at most 1e9 unless an option says otherwise; NaN is never
    valid.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.type is bool and value in (0, 1):  # as integers in older files
            continue
        try:
            msgspec.convert(value, field.type)
        except msgspec.ValidationError as error:
            rule = str(error).replace("Expected", "must be")  # "must be `int`, got `str`"
            raise UserError(f"--{field.name} {rule}") from None
        for single in value if isinstance(value, list) else [value]:
            if single is not None and (rule := _broken_rule(field, single)):
                raise UserError(f"--{field.name} must be {rule}, is {repr(single)[:40]}")


def _broken_rule(field: dataclasses.Field, value: Any) -> str | None:
    """What a value of the right type must be and is not."""
    choices = field.metadata["choices"]
    if choices and value not in choices:
        return " or ".join(map(str, choices))
    if isinstance(value, int | float):
        is_float = float in _kinds(field.type)
        within = field.metadata["within"] or ("[0, inf)" if is_float else "[0, 1e9]")
        low, high = map(float, within[1:-1].split(","))
        above = value >= low if within[0] == "[" else value > low
        below = value <= high if within[-1] == "]" else value < high
        if not (above and below):
            return f"in {within}"
    return None


def parse_options(
    cls: type[Options],
    description: str,
    arguments: list[str] | None = None,
    ignored: Sequence[Ignored] = (),
) -> Options:
    """Build `cls` from the command line; its `__post_init__` checks combinations of options."""
    fields = dataclasses.fields(cls)
    required = "".join(f" --{field.name} NAME" for field in fields if _is_required(field))
    parser = ArgumentParser(description=description, usage=f"%(prog)s{required} [options]")
    # Looked for before anything is parsed: it decides what the help of the options is.
    show_all = "--help_all" in (sys.argv[1:] if arguments is None else arguments)
    count = len(fields) + len(ignored)
    parser.add_argument("--help_all", action="help", help=f"show all {count} options and exit")
    for field in fields:
        _add_option(parser, field, show_all)
    for published in ignored:
        why = f"accepted, no effect: {published.why}" if show_all else argparse.SUPPRESS
        settings = {"dest": f"ignored {published.name}", "default": argparse.SUPPRESS, "help": why}
        if published.kind is bool:
            settings["action"] = "store_true"
        else:
            settings |= _value_settings(published.kind)
        parser.add_argument(f"--{published.name}", **settings)
    values = vars(parser.parse_args(arguments))
    given = [(each, values.pop(name)) for each in ignored
             if (name := f"ignored {each.name}") in values]  # fmt: skip
    for field in fields:
        if values[field.name] == "" and type(None) in _kinds(field.type):
            values[field.name] = None  # how published scripts leave an option out
    options = cls(**values)
    for published, value in given:
        published.check(value, options)
    return options


def _add_option(parser: ArgumentParser, field: dataclasses.Field, show_all: bool) -> None:
    """Make a field an option of the command line."""
    metadata = field.metadata
    settings: dict[str, Any] = {"help": argparse.SUPPRESS}
    if show_all or metadata["usual"] or _is_required(field):
        settings["help"] = metadata["help"].replace("%", "%%")
    if show_all and metadata["aliases"]:
        settings["help"] += f" (also --{', --'.join(metadata['aliases'])})"
    if _is_required(field):
        settings["required"] = True
    elif field.default is not dataclasses.MISSING:
        settings["default"] = field.default
    else:
        settings["default"] = field.default_factory()
    if field.type is bool:
        settings["action"] = argparse.BooleanOptionalAction
    else:
        settings |= _value_settings(field.type)
    if metadata["choices"]:
        settings["choices"] = metadata["choices"]
        settings["metavar"] = "{" + ",".join(map(str, metadata["choices"])) + "}"
    names = (f"--{name}" for name in (field.name, *metadata["aliases"]))
    parser.add_argument(*names, dest=field.name, **settings)


def adopt(options: Options, values: Mapping[str, Any], source: object) -> Options:
    """The options with values out of a file; raises UserError if one is not valid."""
    try:
        return dataclasses.replace(options, **values)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def labelled(text: str, form: str) -> tuple[str, str]:
    """Label and value of an argument such as `LABEL=FOLDER`; the value may hold `=`.

    Raises UserError if the text is not of this form.
    """
    label, _, value = text.partition("=")
    if not label or not value:
        raise UserError(f"'{text}' is not {form}")
    return label, value


def _is_required(field: dataclasses.Field) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _kinds(kind: Any) -> tuple[type, ...]:
    """`(int, NoneType)` out of `int | None`, `(int,)` out of `int` and `list[int]`."""
    return get_args(kind) or (kind,)


def _value_settings(kind: Any) -> dict[str, Any]:
    inner = _kinds(kind)[0]
    settings = {"type": inner, "metavar": {int: "N", float: "X", str: "TEXT"}[inner]}
    return settings | {"nargs": "+"} if get_origin(kind) is list else settings
