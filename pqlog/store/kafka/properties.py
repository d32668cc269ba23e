"""Client properties: those of librdkafka, and those of Java clients where they have an equivalent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pqlog.errors import ArgumentError


def of(config: Mapping[str, Any] | str | os.PathLike[str]) -> dict[str, Any]:
    """The properties of a mapping, or of a file."""
    if isinstance(config, Mapping):
        return dict(config)
    return read(Path(config))


def read(path: Path) -> dict[str, Any]:
    """The properties of a file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ArgumentError(f"config {str(path)!r} cannot be read: {error.strerror}") from error
    lines = (line.strip() for line in text.splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith(("#", "!")))
    return {name.strip(): value.strip() for name, _, value in pairs}
