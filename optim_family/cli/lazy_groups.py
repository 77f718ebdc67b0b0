"""A group of commands whose modules are imported when a command is executed, not when it is listed."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, final

import rich_click as click

from optim_family.cli.output import Output, common
from optim_family.errors import UsageError, unknown


@final
class CommandGroup(click.RichGroup):
    """A group that suggests the nearest command for an unknown name.

    Args:
        package: `command` in the module of a name is the command of that name.
        summaries: the names of those commands, and the line of each in the group's help.
    """

    def __init__(self, *args: Any, package: str = "", summaries: Mapping[str, str] = {}, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.package, self.summaries = package, summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names; those with a summary come first, in the order of `summaries`."""
        return [*self.summaries, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; before its module is imported, a placeholder with its name and summary."""
        if cmd_name in self.summaries:
            return click.RichCommand(name=cmd_name, help=self.summaries[cmd_name])
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names, imported.

        Raises:
            UsageError: there is no such command; the nearest name and the list.
        """
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UsageError(unknown("command", args[0], known))
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.summaries:
            command = importlib.import_module(f"{self.package}.{name}").command
        return name, command, rest

    def subcommand(
        self, name: str, cls: type[click.RichCommand] = click.RichCommand
    ) -> Callable[[Callable[..., Any]], click.Command]:
        """Make a function of (output, name, …) the command `name NAME` of this group."""
        return lambda function: self.command(name, cls=cls)(click.argument("name")(common(function)))


def listing(name: str) -> Callable[[Callable[[Output], None]], CommandGroup]:
    """Make a function a group of commands; without a subcommand the group calls it, and it prints a list."""

    def decorate(function: Callable[[Output], None]) -> CommandGroup:
        @click.pass_context
        def callback(ctx: click.Context, output: Output) -> None:
            if ctx.invoked_subcommand is None:
                function(output)

        group = click.group(name, cls=CommandGroup, invoke_without_command=True, help=function.__doc__)
        return group(common(callback))

    return decorate
