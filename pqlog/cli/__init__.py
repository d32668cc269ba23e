"""The command ``pqlog``. Needs the extra ``cli``."""

from __future__ import annotations

import sys

from pqlog import extras
from pqlog.errors import MissingExtraError


def main() -> None:
    """Run the command line; the entry point of the script ``pqlog``."""
    try:
        app = extras.commands.app
    except MissingExtraError as error:
        sys.exit(f"pqlog: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    app(prog_name="pqlog")
