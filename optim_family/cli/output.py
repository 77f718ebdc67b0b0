"""Print results to stdout, as text or as one JSON value, and everything else to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeVar, final

import rich_click as click

Row = Sequence[str]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_FLAGS: Final = {
    "json": (("--json",), "Print one JSON value on stdout; everything else goes to stderr."),
    "quiet": (("-q", "--quiet"), "Print only the result and errors."),
    "verbose": (("-v", "--verbose"), "Print more details."),
    "debug": (("--debug",), "Show the traceback of an error."),
}


@final
class Output:
    """The output of one command. Remembers its flags, whether the group or the command got them."""

    def __init__(self) -> None:
        self.json = self.quiet = self.verbose = self.debug = False

    def say(self, text: str) -> None:
        """Print a message for the user on stderr, unless --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def data(self, value: Any) -> None:
        """Print the result as JSON on stdout."""
        print(json.dumps(value, indent=2, allow_nan=False))

    def table(self, headers: Row, rows: Sequence[Row]) -> None:
        """Print the result as a table on stdout, folded to the width of a terminal, unfolded in a pipe."""
        if sys.stdout.isatty():
            _rich_table(headers, rows)
        else:
            print("\n".join(aligned([headers, *rows] if any(headers) else rows)))


def common(function: _Function) -> _Function:
    """The options that every command has; they set the flags of the command's `Output`."""
    for name, (spellings, text) in reversed(_FLAGS.items()):
        function = click.option(
            *spellings, name, is_flag=True, expose_value=False, callback=_set, help=text, panel="Output"
        )(function)
    return function


def aligned(rows: Sequence[Row]) -> list[str]:
    """One line a row, the columns under each other, two spaces apart.

    >>> aligned([["a", "b"], ["long", "c"]])
    ['a     b', 'long  c']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """One pair for each value that is set, nested names joined by dots; a list is one value.

    >>> list(flat({"a": {"b": 1, "c": None}, "d": [2, 3]}))
    [('a.b', '1'), ('d', '2  3')]
    """
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, "  ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _set(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(ctx.obj, str(parameter.name), True)


def _rich_table(headers: Row, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
