"""All commands, in the order in which the help lists them."""

from pqlog.cli import writing, reading, copying, keeping  # noqa: F401, I001 - each module adds its own
from pqlog.cli.app import EXAMPLES, app

__all__ = ["EXAMPLES", "app"]
