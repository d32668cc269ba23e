"""The magic ``%pqlog``: open a file and show it."""

from __future__ import annotations

from typing import Any

import pqlog
from pqlog.errors import Error


def register(shell: Any) -> None:
    """Register ``%pqlog`` with an IPython shell."""

    def magic(line: str) -> object:
        """``%pqlog events.db``: opens the file for reading as the variable `log`, and shows its explorer."""
        path = line.strip().strip("\"'")
        if not path:
            print("%pqlog PATH: opens a file for reading as `log`, and shows its explorer")
            return None
        try:
            log = pqlog.open(path, readonly=True)
        except Error as error:
            print(error)
            return None
        shell.push({"log": log})
        return log.explore()

    shell.register_magic_function(magic, magic_name="pqlog")
