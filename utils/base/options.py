"""Command-line options, declared with type, default and explanation in one place.

The models declare theirs as a dataclass, one `option(...)` per field, and call `parse_options`.
Programs with few options use `ArgumentParser` directly.
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
SEEDS = "[0, 4294967295]"  # NumPy's limits


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults; as wide as the terminal, short enough for one screen."""

    def __init__(self, prog: str):
        width = min(shutil.get_terminal_size().columns, 140)
        super().__init__(prog, max_help_position=34, width=width)

    def _get_help_string(self, action: argparse.Action) -> str:
        default = action.default
        is_obvious = default is None or default is False or default in ([], "")
        if is_obvious or default is argparse.SUPPRESS or not action.option_strings:
            return action.help or ""
        values = default if isinstance(default, list | tuple) else [default]
        return f"{action.help or ''} (default: {' '.join(map(str, values)).replace('%', '%%')})"

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.dest == "help":
            return super()._format_action_invocation(action)
        name = action.option_strings[0]  # aliases are in the explanation
        if isinstance(action, argparse.BooleanOptionalAction):
            # An option that is off by default needs no --no-.
            return f"{name}, --no-{name[2:]}" if action.default is True else name
        if action.nargs == 0:
            return name
        return f"{name} {self._format_args(action, action.dest.upper())}"


class ArgumentParser(argparse.ArgumentParser):
    """`argparse` with error messages of one line, and exit code 2."""

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
    local: bool = False,
) -> Any:
    """A dataclass field that is also a command-line option; required if it has no default.

    `--help` shows `usual` options and required ones, `--help_all` all. `within` is the interval of
    valid numbers, by default that of `check_options`. A `free` option may change when a run is
    continued. A `local` one may name a file of this machine: shared runs leave both kinds out.
    """
    metadata = {
        "help": explanation,
        "choices": choices,
        "aliases": aliases,
        "usual": usual,
        "within": within,
        "free": free,
        "local": local,
    }
    if isinstance(default, tuple):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Ignored(NamedTuple):
    """A published option that is accepted and has no effect.

    `fits(value, options)` is False for values with which published code computes something else.
    """

    name: str
    kind: Any  # type, as of a field: bool for a flag, list[int] for one or more numbers
    why: str
    fits: Callable[[Any, Any], bool] = lambda value, options: True

    def check(self, value: Any, options: Any, source: str = "") -> None:
        """Raise UserError, which begins with `source`, if the value does not fit the options."""
        if not self.fits(value, options):
            raise UserError(f"{source}--{self.name} {value} is not supported: {self.why}")


def check_options(options: Any) -> None:
    """Raise UserError for a value of the wrong type, not among the choices or outside its interval.

    By default numbers are at least 0 and integers at most 1e9; NaN is never valid.
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
        for item in value if isinstance(value, list) else [value]:
            if item is not None and (rule := _broken_rule(field, item)):
                raise UserError(f"--{field.name} must be {rule}, is {repr(item)[:40]}")


def _broken_rule(field: dataclasses.Field, value: Any) -> str | None:
    """The rule that a value of the right type breaks, or None."""
    choices = field.metadata["choices"]
    if choices and value not in choices:
        return " or ".join(map(str, choices))
    if isinstance(value, int | float):
        is_float = float in _kinds(field.type)
        interval = field.metadata["within"] or ("[0, inf)" if is_float else "[0, 1e9]")
        if not _is_within(value, interval):
            return f"in {interval}"
    return None


def _is_within(value: float, interval: str) -> bool:
    low, high = map(float, interval[1:-1].split(","))
    is_high_enough = value >= low if interval[0] == "[" else value > low
    return is_high_enough and (value <= high if interval[-1] == "]" else value < high)


def within(kind: type, interval: str) -> Callable[[str], Any]:
    """A `type` for `add_argument`: numbers of an interval such as `[1, 1000]`."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not _is_within(value, interval):
            raise argparse.ArgumentTypeError(f"must be in {interval}, is {text}")
        return value

    parse.__name__ = kind.__name__  # in argparse's message about what is no number
    return parse


def parse_options(
    cls: type[Options],
    description: str,
    arguments: list[str] | None = None,
    ignored: Sequence[Ignored] = (),
) -> Options:
    """Build `cls` from the command line; its `__post_init__` checks the values."""
    fields = dataclasses.fields(cls)
    required = "".join(f" --{field.name} NAME" for field in fields if _is_required(field))
    parser = ArgumentParser(description=description, usage=f"%(prog)s{required} [options]")
    # Needed before parsing: the help texts depend on it.
    show_all = "--help_all" in (sys.argv[1:] if arguments is None else arguments)
    count = len(fields) + len(ignored)
    parser.add_argument("--help_all", action="help", help=f"show all {count} options and exit")
    for field in fields:
        _add_option(parser, field, show_all)
    for published in ignored:
        why = f"accepted, no effect: {published.why}" if show_all else argparse.SUPPRESS
        parser.add_argument(
            f"--{published.name}", dest=f"ignored {published.name}", default=argparse.SUPPRESS,
            help=why, **_value_settings(published.kind),
        )  # fmt: skip
    values = vars(parser.parse_args(arguments))
    for field in fields:
        if values[field.name] == "" and type(None) in _kinds(field.type):
            values[field.name] = None  # published scripts pass "" for no value
    options = cls(**{field.name: values[field.name] for field in fields})
    for published in ignored:
        if (name := f"ignored {published.name}") in values:
            published.check(values[name], options)
    return options


def _add_option(parser: ArgumentParser, field: dataclasses.Field, show_all: bool) -> None:
    """Add a field to the command line."""
    metadata = field.metadata
    settings: dict[str, Any] = {"help": argparse.SUPPRESS}
    if show_all or metadata["usual"] or _is_required(field):
        settings["help"] = metadata["help"].replace("%", "%%")
    if show_all and metadata["aliases"]:
        settings["help"] += f" (also --{', --'.join(metadata['aliases'])})"
    if _is_required(field):
        settings["required"] = True
    elif field.default is dataclasses.MISSING:
        settings["default"] = field.default_factory()
    else:
        settings["default"] = field.default
    settings |= _value_settings(field.type)
    if metadata["choices"]:
        settings["choices"] = metadata["choices"]
        settings["metavar"] = "{" + ",".join(map(str, metadata["choices"])) + "}"
    names = (f"--{name}" for name in (field.name, *metadata["aliases"]))
    parser.add_argument(*names, dest=field.name, **settings)


def adopt(options: Options, values: Mapping[str, Any], source: object) -> Options:
    """Replace values of options by those of a file; raises UserError if one is not valid."""
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
    """`(int, NoneType)` of `int | None`, `(int,)` of `int` and `list[int]`."""
    return get_args(kind) or (kind,)


def _value_settings(kind: Any) -> dict[str, Any]:
    if kind is bool:
        return {"action": argparse.BooleanOptionalAction}
    inner = _kinds(kind)[0]
    settings = {"type": inner, "metavar": {int: "N", float: "X", str: "TEXT"}[inner]}
    return settings | {"nargs": "+"} if get_origin(kind) is list else settings
