"""The one door to the rooms around the core: loads one on first use, or says what to install."""

from __future__ import annotations

import importlib
from typing import Any

from pqlog.errors import MissingExtraError

_EXTRA = {"frames": "pandas", "frames.polars": "polars", "notebook": "notebook"}


def load(room: str) -> Any:
    """The module ``pqlog.<room>``.

    Parameters
    ----------
    room : str
        Such as ``"frames"``.

    Raises
    ------
    MissingExtraError
        A package that it needs is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(f"pqlog.{room}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pqlog"):
            raise
        raise MissingExtraError(error.name, _EXTRA[room]) from error
