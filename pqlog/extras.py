"""The only way from the core to the packages around it: loads one on first use, or says what to install.

``extras.frames`` is the module `pqlog.frames`, imported at the first access. A type checker sees the module itself, so
calls through it are checked like any others.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from pqlog.errors import MissingExtraError

if TYPE_CHECKING:
    from pqlog import copying as copying
    from pqlog import dask as dask
    from pqlog import demo as demo
    from pqlog import export as export
    from pqlog import frames as frames
    from pqlog import pipe as pipe
    from pqlog import sql as sql
    from pqlog.cli import commands as commands
    from pqlog.frames import dataframes as dataframes
    from pqlog.frames import live as live
    from pqlog.frames import matching as matching
    from pqlog.frames import predicates as predicates
    from pqlog.frames import scans as scans
    from pqlog.frames import schema_cache as schema_cache
    from pqlog.notebook import explorer as explorer
    from pqlog.notebook import magic as magic
    from pqlog.notebook import views as views
else:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = module = load(_MODULES[name])
        return module


_MODULES = {
    "commands": "cli.commands",
    "copying": "copying",
    "dask": "dask",
    "dataframes": "frames.dataframes",
    "demo": "demo",
    "explorer": "notebook.explorer",
    "export": "export",
    "frames": "frames",
    "scans": "frames.scans",
    "sql": "sql",
    "schema_cache": "frames.schema_cache",
    "live": "frames.live",
    "matching": "frames.matching",
    "predicates": "frames.predicates",
    "magic": "notebook.magic",
    "pipe": "pipe",
    "views": "notebook.views",
}
_EXTRA = {
    "cli": "cli",
    "dask": "dask",
    "demo": "demo",
    "export": "pandas",
    "frames": "pandas",
    "notebook": "notebook",
    "pipe": "pandas",
    "sql": "sql",
}
_OF_PACKAGE = {
    "dask": "dask",
    "jupyterlab": "lab",
    "matplotlib": "demo",
    "polars": "polars",
    "duckdb": "sql",
    "sqlglot": "sql",
}
"""Packages that are needed only by a part of a module, and their extra."""


def load(module: str) -> Any:
    """The module ``pqlog.<module>``.

    Parameters
    ----------
    module : str
        Such as ``"frames"``.

    Raises
    ------
    MissingExtraError
        A package that it needs is not installed; the message says how to install it.
    """
    part = module.partition(".")[0]
    with needed(_EXTRA.get(part, part)):
        return importlib.import_module(f"pqlog.{module}")


@contextlib.contextmanager
def needed(extra: str) -> Iterator[None]:
    """Around imports that need an extra: if a package is missing, the error says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pqlog"):
            raise
        raise MissingExtraError(error.name.partition(".")[0].replace("_", "-"), extra) from error


def load_ipython_extension(shell: Any) -> None:
    """``%load_ext pqlog`` in IPython and Jupyter: registers the magic ``%pqlog``."""
    load("notebook.magic").register(shell)


def package(name: str) -> Any:
    """A package that is needed only by a part of a module."""
    with needed(_OF_PACKAGE.get(name.partition(".")[0], "pandas")):
        return importlib.import_module(name)


@contextlib.contextmanager
def progress_bar(total: int | None, what: str, show: bool) -> Iterator[Callable[[int], object]]:
    """A function to call with each number of messages done; it moves a bar in a terminal or a notebook, if `show`."""
    if not show:
        yield lambda messages: None
        return
    with package("tqdm.auto").tqdm(total=total, desc=what, unit=" messages", unit_scale=True) as bar:
        yield bar.update
