"""Imports go downwards only, and the core starts fast."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pqlog

ROOT = Path(pqlog.__file__).parent

# From the top down; a module may import its own layer and those below it.
LAYERS = [
    ["cli", "__main__"],
    ["demo"],
    ["export", "notebook", "pipe"],
    ["__init__"],
    ["files", "migration"],
    ["log"],
    ["topic"],
    ["client"],
    ["delivery"],
    ["batch", "clients"],
    ["frames"],
    ["history", "producer"],
    ["readable"],
    ["stream"],
    ["extras", "codecs", "message"],
    ["keys"],
    ["check", "exact", "fields"],
    ["store.sqlite"],
    ["store.api"],
    ["store.values"],
    ["errors", "atomic"],
]


def layer_of(module):
    for depth, names in enumerate(LAYERS):
        if any(module == name or module.startswith(name + ".") for name in names):
            return depth
    raise AssertionError(f"pqlog.{module} is in no layer: add it to LAYERS")


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        if parts != ("store",):
            yield ".".join(parts), path


def imports(path):
    tree = ast.parse(path.read_text())
    only_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pqlog"):
            base = node.module.removeprefix("pqlog").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                as_module = ROOT.joinpath(*inner.split("."))
                yield inner if as_module.with_suffix(".py").exists() or as_module.is_dir() else base or "__init__"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "pqlog":
                    yield "__init__"


def test_imports_go_downwards_only():
    upwards = []
    for module, path in modules():
        for imported in imports(path):
            if imported != "store" and layer_of(imported) < layer_of(module):
                upwards.append(f"{module} imports {imported}")
    assert not upwards


def test_only_the_engine_imports_apsw():
    users = [module for module, path in modules() if re.search(r"^import apsw", path.read_text(), re.M)]
    assert users
    assert all(module.startswith("store.sqlite") for module in users)


def test_only_two_modules_name_an_engine():
    users = {module for module, path in modules() if "store.sqlite" in path.read_text()}
    assert {module for module in users if not module.startswith("store.")} == {"files", "migration"}


def test_only_one_module_renames_files_and_makes_them_durable():
    """What the simulated disk listens to."""
    words = re.compile(r"os\.(rename|replace|link|fsync|fdatasync)\(")
    assert [module for module, path in modules() if words.search(path.read_text())] == ["atomic"]


def test_import_loads_nothing_heavy():
    script = (
        "import sys, pqlog\n"
        "with pqlog.open(':memory:') as log:\n"
        "    log.put({'a': 1}); list(log.get())\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'ipywidgets', 'IPython', 'sqlite3', 'polars'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
