"""The command of a part: an option for each of its settings.

`splitplace gateway` and `python -m splitplace.services.gateway` run the same command.
"""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo

from splitplace.bus.process import run_until_signal
from splitplace.bus.settings import Settings

SettingsT = TypeVar("SettingsT", bound=Settings)

_EPILOG = (
    "Every option is also a variable (`SPLITPLACE_BROKER` for `--broker`) and a key in `splitplace.toml` "
    '(`broker = "..."`). Flags win over variables, variables over the file.'
)
_TYPES = (bool, int, float, Path)


def part_command(
    settings: type[SettingsT], work: Callable[[SettingsT], Awaitable[None]], summary: str
) -> typer.Typer:
    """Return the command that runs a part until a signal ends it.

    Args:
        settings: the class of its settings.
        work: runs the part until it is cancelled.
        summary: the first line of its help.
    """

    def run_part(given: dict[str, Any]) -> None:
        chosen = settings.load(**given)

        async def begin() -> None:
            await work(chosen)

        run_until_signal(begin(), chosen)

    return settings_command(settings, run_part, summary)


def settings_command(
    settings: type[Settings], work: Callable[[dict[str, Any]], None], summary: str
) -> typer.Typer:
    """Return a command with an option for each field of a settings class.

    Args:
        settings: the class.
        work: gets the values that flags name, by field.
        summary: the first line of the help.
    """

    def command(context: typer.Context, **values: Any) -> None:  # noqa: ANN401 - as the options say
        sources = {name: context.get_parameter_source(name) for name in values}
        work({name: value for name, value in values.items() if _is_given(sources[name])})

    parameters = [
        inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context),
        *(_option(name, field) for name, field in _own_first(settings)),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(help=summary, epilog=_EPILOG)(command)
    return app


def _own_first(settings: type[Settings]) -> Sequence[tuple[str, FieldInfo]]:
    """Fields of the part itself, then those that all parts share."""
    return sorted(settings.model_fields.items(), key=lambda field: field[0] in Settings.model_fields)


def _option(name: str, field: FieldInfo) -> inspect.Parameter:
    kind = _type_of(field.annotation)
    flag = f"--{name.replace('_', '-')}"
    default = field.default if field.default_factory is None else None
    option = typer.Option(
        f"{flag}/--no-{flag.removeprefix('--')}" if kind is bool else flag,
        help=field.description,
        rich_help_panel=_panel(name, kind),
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind if default is not None else kind | None, option],
    )


def _panel(name: str, kind: object) -> str:
    """The heading in the help. Switches stand apart: their negations would squeeze all other columns."""
    if name in Settings.model_fields:
        return "Broker and log"
    return "Switches" if kind is bool else "Options"


def _type_of(annotation: Any) -> Any:  # noqa: ANN401 - a type expression
    """The type of an option: one that typer checks and completes, else a text that the settings check."""
    if get_origin(annotation) in {Union, UnionType}:
        annotation = next(each for each in get_args(annotation) if each is not NoneType)
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation if annotation in _TYPES or get_origin(annotation) is Literal else str


def _is_given(source: Any) -> bool:  # noqa: ANN401 - an enumeration that typer does not export
    return source is not None and source.name == "COMMANDLINE"
