"""Notes on pandas frames, kept in the metadata of the Arrow table and of its fields."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

NOTE = b"pqlog.pandas"
"""In the metadata of a field: a `Note`."""
ARROW = "arrow"
"""The dtype in the note of every Arrow dtype; the type of the field says which one."""
OBJECT = "object"
CATEGORY = "category"


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a column was in pandas.

    Attributes
    ----------
    dtype : str
        The name of its dtype; ``"arrow"`` for every Arrow dtype.
    storage : str, optional
        The storage of a text dtype of pandas.
    missing : {"nan", "NA", "NaT"}, optional
        What stands for null among objects; None if it is None.
    array : str, optional
        If objects are NumPy arrays, their dtype.
    unit : str, optional
        If objects are Timestamps or Timedeltas of pandas, their unit.
    ordered : bool
        Whether categories are ordered.
    categories : Note, optional
        The note on the index of categories.
    freq : str, optional
        The frequency of categories that are times.
    stored : str, optional
        The categories, if Arrow's dictionary has only their text: an Arrow stream, in base64.
    """

    dtype: str
    storage: str | None = None
    missing: str | None = None
    array: str | None = None
    unit: str | None = None
    ordered: bool = False
    categories: Note | None = None
    stored: str | None = None
    freq: str | None = None

    @property
    def is_opaque(self) -> bool:
        """Whether such a column has other values in Arrow than in pandas."""
        return self.stored is not None or self.unit is not None or self.dtype.startswith(("period[", "interval["))


FRAME = b"pqlog.frame"
"""In a schema's metadata: a `FrameNote`."""


class Level(msgspec.Struct, omit_defaults=True):
    """A level of an index: a column of the table, a range, or both, which is a range with a name.

    Attributes
    ----------
    field : str, optional
        The column.
    start, step : int, optional
        The range.
    freq : str, optional
        The frequency of times.
    """

    field: str | None = None
    start: int = 0
    step: int | None = None
    freq: str | None = None


class FrameNote(msgspec.Struct, omit_defaults=True):
    """What a pandas frame has in addition to its columns.

    Attributes
    ----------
    columns : int
        How many of the table's first columns are columns of the frame.
    levels : list of Level
        Its index.
    names : list
        The names of the levels, each None or a value that JSON has.
    is_multi : bool
        Whether the index is a MultiIndex.
    name : object
        The name of the labels.
    labels : str, optional
        The labels, unless they are the names of the table's columns: an Arrow stream, in base64.
    freq : str, optional
        The frequency of labels that are times.
    attrs : dict
        The frame's ``attrs``.
    """

    columns: int
    levels: list[Level]
    names: list[Any]
    is_multi: bool = False
    name: Any = None
    labels: str | None = None
    freq: str | None = None
    attrs: dict[str, Any] = {}


def frame_note_of(schema: pa.Schema) -> FrameNote | None:
    """The note on the pandas frame that a table was; None if it was not one."""
    text = (schema.metadata or {}).get(FRAME)
    return None if text is None else msgspec.json.decode(text, type=FrameNote)


def note_of(field: pa.Field) -> Note | None:
    """The note on a field; None if it was not put by pandas.

    Raises
    ------
    msgspec.ValidationError
        The note is not as we make it.
    """
    text = (field.metadata or {}).get(NOTE)
    return None if text is None else msgspec.json.decode(text, type=Note)


def noted(field: pa.Field, note: Note | None) -> pa.Field:
    """A field with a note, or without one."""
    metadata = {key: text for key, text in (field.metadata or {}).items() if key != NOTE}
    if note is not None:
        metadata[NOTE] = msgspec.json.encode(note)
    return field.with_metadata(metadata or None)
