"""A group of commands whose modules are imported when a command is used, not when it is listed."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, final

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.errors import UsageError, unknown


def check_name(group: click.Group, ctx: click.Context, args: list[str]) -> None:
    """The first argument, if it is no option, names a command.

    Raises:
        UsageError: it does not; the nearest name and the list.
    """
    known = group.list_commands(ctx)
    if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
        raise UsageError(unknown("command", args[0], known))


@final
class Group(click.RichGroup):
    """A group that names the nearest command when there is none of the name."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        check_name(self, ctx, args)
        return super().resolve_command(ctx, args)

    def named(self, name: str) -> Callable[[Callable[..., Any]], click.Command]:
        """Make a function of (output, name, …) the command `name NAME` of this group."""
        return lambda function: self.command(name)(click.argument("name")(common(click.pass_obj(function))))


def listing(name: str) -> Callable[[Callable[[Output], None]], Group]:
    """Make a function a group of commands; without any of them the function is called, and lists."""

    def decorate(function: Callable[[Output], None]) -> Group:
        @common
        @click.pass_context
        def callback(ctx: click.Context) -> None:
            if ctx.invoked_subcommand is None:
                function(ctx.obj)

        made = click.group(name, cls=Group, invoke_without_command=True, help=function.__doc__)
        return made(callback)

    return decorate


@final
class LazyGroup(click.RichGroup):
    """Name → one summary; the command is `command` in the module of its name."""

    def __init__(self, *args: Any, package: str, summaries: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.package, self.summaries = package, summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which they were given."""
        return list(self.summaries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """What a list shows of a command: its name and its summary."""
        summary = self.summaries.get(cmd_name)
        return click.RichCommand(name=cmd_name, help=summary) if summary else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command itself, from its module."""
        check_name(self, ctx, args)
        name, shown, rest = super().resolve_command(ctx, args)
        if name is None or shown is None:
            return name, shown, rest
        return name, importlib.import_module(f"{self.package}.{name}").command, rest
