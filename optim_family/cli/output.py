"""Print results to stdout, as text or as one JSON value, and everything else to stderr."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from pathlib import Path
from typing import Any, Final, final

import rich_click as click

from optim_family.runs.atomic_files import replace_atomically

Row = Sequence[str]
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH: Final = click.Path(path_type=Path)
FOLDER: Final = click.Path(path_type=Path, file_okay=False)


@final
class Output:
    """The output of one command. Remembers the output flags, which the group or the command may set."""

    def __init__(self) -> None:
        self.json = self.quiet = self.verbose = self.debug = False

    def say(self, text: str) -> None:
        """Print a message for the user on stderr, unless --quiet."""
        if not self.quiet:
            print(text, file=sys.stderr)

    def result(self, value: Any, headers: Row, rows: Sequence[Row]) -> None:
        """Print the result: with --json the value, otherwise the table."""
        if self.json:
            self.data(value)
        else:
            self.table(headers, rows)

    def result_of_runs(self, value: Any, headers: Row, rows: Sequence[Row]) -> None:
        """Print a result with a column for each run, or in a narrow terminal a row for each run."""
        from rich.console import Console

        width = max(map(len, aligned([headers, *rows])), default=0)
        if self.json or not sys.stdout.isatty() or len(headers) < 4 or width <= Console().width:
            return self.result(value, headers, rows)
        for number, table in enumerate(a_run_a_row(headers, rows, Console().width)):
            print("\n" * bool(number), end="")
            self.table(*table, whole=number > 0)

    def data(self, value: Any) -> None:
        """Print a value as JSON on stdout."""
        print(json.dumps(value, indent=2, allow_nan=False))

    def table(self, headers: Row, rows: Sequence[Row], *, whole: bool = False) -> None:
        """Print a table on stdout; a terminal folds the cells to its width, unless there is one column.

        `whole` folds the headers alone, for rows that fit.
        """
        if not sys.stdout.isatty() or len(headers) == 1:
            print("\n".join(aligned([headers, *rows] if any(headers) else rows)))
            return
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headers))
        for i, header in enumerate(headers):
            least = max(len(row[i]) for row in rows) if whole else None
            table.add_column(header, overflow="fold", min_width=least)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)


def add_options(*options: Decorator) -> Decorator:
    """One decorator that adds several options, in the order of the help."""
    return lambda function: reduce(lambda decorated, option: option(decorated), reversed(options), function)


def _set_flag(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        setattr(ctx.obj, str(parameter.name), True)


_flag = partial(click.option, is_flag=True, expose_value=False, callback=_set_flag, panel="Output")
# The options of every command. They set the flags of the `Output`, which is the command's first argument.
common: Final[Decorator] = add_options(
    _flag("--json", help="Print one JSON value on stdout; everything else goes to stderr."),
    _flag("-q", "--quiet", help="Print only the result and errors."),
    _flag("-v", "--verbose", help="Print more details."),
    _flag("--debug", help="Show the traceback of an error."),
    click.pass_obj,
)


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with non-ASCII characters as they are; NaN and infinities raise ValueError."""
    replace_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def by_suffix(paths: Sequence[Path]) -> dict[str, str]:
    """The paths of a figure by file type: `{"svg": …, "png": …}`."""
    return {path.suffix[1:]: str(path) for path in paths}


def joined(paths: Sequence[Path]) -> str:
    """Paths in one line."""
    return "  ".join(map(str, paths))


def aligned(rows: Sequence[Row]) -> list[str]:
    """One line a row, the columns under each other, two spaces apart.

    >>> aligned([["a", "b"], ["long", "c"]])
    ['a     b', 'long  c']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    cells = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return ["  ".join(row).rstrip() for row in cells]


def a_run_a_row(headers: Row, rows: Sequence[Row], width: int) -> Iterator[tuple[Row, list[Row]]]:
    """Tables with a row for each run, of as many quantities as fit; numbers stand for the names of the runs.

    Args:
        headers: "run" and the names of the runs.
        rows: a quantity each: its name, and its value for each run.
        width: of the terminal; a name of a quantity may take several lines.

    >>> for table in a_run_a_row(["run", "gd", "sgd"], [["loss", "0.1", "0.2"], ["steps", "5", "6"]], 9):
    ...     print(table)
    (['#', 'run'], [['1', 'gd'], ['2', 'sgd']])
    (['#', 'loss'], [['1', '0.1'], ['2', '0.2']])
    (['#', 'steps'], [['1', '5'], ['2', '6']])
    """
    numbers = [str(i) for i in range(1, len(headers))]
    yield ["#", headers[0]], [list(pair) for pair in zip(numbers, headers[1:], strict=True)]
    columns, used = [["#", *numbers]], len(numbers[-1])
    for quantity in rows:
        needed = 2 + max(map(len, [*quantity[1:], *quantity[0].split()]))
        if used + needed > width and len(columns) > 1:
            yield _table(columns)
            columns, used = columns[:1], len(numbers[-1])
        columns, used = [*columns, list(quantity)], used + needed
    yield _table(columns)


def _table(columns: Sequence[Row]) -> tuple[Row, list[Row]]:
    """Headers and rows of columns that begin with their header."""
    rows: list[Row] = [list(row) for row in zip(*columns, strict=True)]
    return rows[0], rows[1:]


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
