"""The rules of CONTRIBUTING.md that can be checked in the source: imports, private parts, who names an engine."""

import ast
import re
from pathlib import Path

import pytest

import pqlog
from tests.processes import run

ROOT = Path(pqlog.__file__).parent

# From the top down; a module may import its own layer and those below it.
LAYERS = [
    ["cli", "__main__"],
    ["demo"],
    ["dask", "export", "notebook", "pipe", "sql"],
    ["__init__"],
    ["aio", "copying"],
    ["files", "migration", "testing"],
    ["log"],
    ["topic"],
    ["client"],
    ["reading"],
    ["delivery"],
    ["batch", "clients", "partition"],
    ["lease"],
    ["frames"],
    ["copier", "copies", "history", "producer", "sender"],
    ["readable"],
    ["stream"],
    ["extras", "codecs", "message"],
    ["keys", "merged", "partitioning"],
    ["interleave"],
    ["check", "exact", "fields"],
    ["store.sqlite", "store.memory", "store.kafka"],
    ["store.api"],
    ["store.sealed"],
    ["store.columns"],
    ["store.values", "store.owners"],
    ["file_set"],
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


def trees():
    for module, path in modules():
        yield module, ast.parse(path.read_text())


def imports(tree, types=False):
    """The modules of pqlog that a module imports; with `types`, also those imported only for annotations."""
    only_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_types and not types:
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
    for module, tree in trees():
        for imported in imports(tree):
            if imported != "store" and layer_of(imported) < layer_of(module):
                upwards.append(f"{module} imports {imported}")
    assert not upwards


@pytest.mark.parametrize(("package", "engine"), [("apsw", "store.sqlite"), ("confluent_kafka", "store.kafka")])
def test_only_the_engine_imports_its_package(package, engine):
    line = re.compile(rf"^\s*(import|from) {package}\b", re.M)
    users = [module for module, path in modules() if line.search(path.read_text())]
    assert users
    assert all(module.startswith(engine) for module in users)


ENGINES = ("store.sqlite", "store.memory", "store.kafka")


def test_only_what_opens_logs_names_an_engine():
    """`testing` opens the one that is for tests."""
    users = {module for module, tree in trees() if any(name.startswith(ENGINES) for name in imports(tree, types=True))}
    assert {module for module in users if not module.startswith(ENGINES)} == {"files", "migration", "testing"}


def test_no_context_manager_made_of_a_generator_holds_a_lock():
    """Ctrl-C can leave it where it stands, with the lock; see `pqlog.store.kafka.locking`."""
    holders = [
        f"{module}.{node.name}"
        for module, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
        and any("contextmanager" in ast.unparse(decorator) for decorator in node.decorator_list)
        and re.search(r"\.acquire\(|BEGIN IMMEDIATE", ast.unparse(node))
    ]
    assert not holders


def names_defined(tree):
    """The private names of a module: its functions, classes and variables, and the members of its classes."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def members_defined(tree):
    """The private members of a module's classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from names_defined(node)


def names_used(tree):
    """The private names that a module uses from others: ``other._name``, and imported ones; not ``self._name``."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass
            case ast.Attribute(attr=name):
                yield name
            case ast.ImportFrom(names=names):
                yield from (alias.name for alias in names)


def private(names):
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def test_no_module_reaches_into_the_private_parts_of_another():
    """A name that a class of the same module has counts as that one; names of other packages do not count."""
    ours = set().union(*(private(names_defined(tree)) for _, tree in trees()))
    used = {module: private(names_used(tree)) & ours - private(members_defined(tree)) for module, tree in trees()}
    assert {module: names for module, names in used.items() if names} == {}


def test_only_one_module_renames_files_and_makes_them_durable():
    """The functions that the simulated disk listens to."""
    words = re.compile(r"os\.(rename|replace|link|fsync|fdatasync)\(")
    assert [module for module, path in modules() if words.search(path.read_text())] == ["atomic"]


def test_import_loads_nothing_heavy():
    script = (
        "import sys, pqlog\n"
        "with pqlog.open(':memory:') as log:\n"
        "    log.put({'a': 1}); list(log.get())\n"
        "heavy = {'pandas', 'numpy', 'pyarrow', 'ipywidgets', 'IPython', 'sqlite3', 'polars', 'confluent_kafka'}\n"
        "heavy &= set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    run(script)


def test_a_command_loads_nothing_heavy_before_it_is_run():
    script = "import sys, pqlog.cli.commands; print({'pandas', 'pyarrow', 'rich', 'tqdm'} & set(sys.modules))"
    assert run(script) == "set()\n"


OFFSETS = {"offset", "first", "last", "stop", "begin", "position"}
"""Names of offsets."""

COUNTED = {
    "cli.keeping": "what salvage tells of a file",
    "errors": "where to continue behind a message: its offset + 1",
    "export": "the name of a file, which is that of a range of offsets; message i of a row",
    "frames.ipc": "offsets of Arrow's buffers",
    "frames.places": "how far apart messages are where offsets have gaps",
    "frames.pandas_table": "the bounds of a RangeIndex",
    "frames.partitioning": "offsets of Arrow's buffers",
    "frames.segments": "the bounds of a RangeIndex",
    "merged": "the places of merged partitions, which are sums of offsets",
    "migration": "the offsets of another program's queue",
    "topic": "where dense_offsets is promised: which offset a message would have had",
}
"""Where offsets are computed all the same, and why that is right on any engine."""


def is_offset(node):
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in OFFSETS
    return False


def sums_of_offsets(tree):
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=ast.Attribute(ast.Name("row"), attr="offset" | "partition_offset"), op=ast.Add()):
                pass  # message i of a row has the offset row.offset + i
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=right) if is_offset(left) or is_offset(right):
                yield ast.unparse(node)


def test_nothing_above_the_store_computes_offsets():
    found = {module: list(sums_of_offsets(tree)) for module, tree in trees() if not module.startswith("store")}
    assert {module: sums for module, sums in found.items() if sums and module not in COUNTED} == {}
    assert {module for module in COUNTED if not found[module]} == set()
