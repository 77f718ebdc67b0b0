"""Execute the code of a notebook; `python -m tests.helpers.notebooks FILE` renews its outputs."""

import ast
import contextlib
import io
import json
import os
import sys
from pathlib import Path


def executed(path):
    """The notebook with the present outputs of its code, executed in its own folder."""
    notebook = json.loads(Path(path).read_text(encoding="utf-8"))
    names, count = {"__name__": "__main__"}, 0
    with contextlib.chdir(Path(path).parent):
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = list(_outputs("".join(cell["source"]), names, count))
    return notebook


def _outputs(source, names, count):
    """What a cell prints, and its last expression as text."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    if printed.getvalue():
        yield {
            "name": "stdout",
            "output_type": "stream",
            "text": printed.getvalue().splitlines(keepends=True),
        }
    if value is not None:
        data = {"text/plain": repr(value).splitlines(keepends=True)}
        yield {"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"}


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    for name in sys.argv[1:]:
        text = json.dumps(executed(name), indent=1, ensure_ascii=False) + "\n"
        Path(name).write_text(text, encoding="utf-8")
