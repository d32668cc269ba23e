"""Lines by folder of the package, its longest files and functions: ``python -m tests.sizes``. For information only."""

import ast
import statistics
from collections import Counter
from pathlib import Path

import pqlog

ROOT = Path(pqlog.__file__).parent


def main(most: int = 12) -> None:
    folders: Counter[str] = Counter()
    files: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    for path in ROOT.rglob("*.py"):
        name, text = path.relative_to(ROOT), path.read_text()
        files[str(name)] = text.count("\n")
        folders[str(name.parent) if name.parent != Path() else "(core)"] += text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                functions[f"{name}:{node.lineno} {node.name}"] = length(node)
    for title, counted in (("Folders", folders), ("Longest files", files), ("Longest functions", functions)):
        print(f"{title}, in lines")
        for what, lines in counted.most_common(most):
            print(f"{lines:7,} {what}")
    tenths = statistics.quantiles(functions.values(), n=10)
    print(f"{len(functions)} functions: median {tenths[4]:.0f} lines, nine of ten up to {tenths[8]:.0f}")


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """The lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


if __name__ == "__main__":
    main()
