"""What is noted of a frame of pandas, in the metadata of the table that is kept: for each column, and for the whole."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa

NOTE = b"pqlog.pandas"
"""In the metadata of a field."""
ARROW = "arrow"
"""The dtype, in a note, of all Arrow dtypes: which one it is, the field says."""
OBJECT = "object"
CATEGORY = "category"


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What pandas had a column as.

    Attributes
    ----------
    dtype : str
        Its name; ``"arrow"`` for every Arrow dtype.
    storage : str, optional
        Of pandas' own text dtypes.
    missing : {"nan", "NA", "NaT"}, optional
        What stands for null among objects; None if it is None.
    array : str, optional
        The NumPy dtype of objects that are arrays.
    unit : str, optional
        That of objects that are pandas' Timestamps or Timedeltas.
    ordered : bool
        Of a category.
    categories : Note, optional
        Of a category: what the index of its categories is.
    freq : str, optional
        pandas' frequency of categories that are times.
    stored : str, optional
        Categories for which Arrow's dictionary has only their text: an Arrow stream, in base64.
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
        """Whether Arrow gives other values than pandas for such a column."""
        return self.stored is not None or self.unit is not None or self.dtype.startswith(("period[", "interval["))


FRAME = b"pqlog.frame"
"""In a schema's metadata: a `FrameNote`."""


class Level(msgspec.Struct, omit_defaults=True):
    """A level of an index: a column of the table, a range, or a range that is a column as well, since it has a name.

    Attributes
    ----------
    field : str, optional
        The column.
    start, step : int, optional
        The range.
    freq : str, optional
        pandas' frequency of times.
    """

    field: str | None = None
    start: int = 0
    step: int | None = None
    freq: str | None = None


class FrameNote(msgspec.Struct, omit_defaults=True):
    """What a pandas frame has beside its columns.

    Attributes
    ----------
    columns : int
        How many columns of the table are columns of the frame; the first ones.
    levels : list of Level
        Its index.
    names : list
        Those of the levels, each None or what JSON holds.
    is_multi : bool
        Whether the index is a MultiIndex.
    name : object
        That of the labels.
    labels : str, optional
        The labels, unless they are the names of the columns: an Arrow stream, in base64.
    freq : str, optional
        pandas' frequency of labels that are times.
    attrs : dict
        What the frame's owner noted.
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
    """What a schema says of the frame that it was; None if that was not of pandas."""
    text = (schema.metadata or {}).get(FRAME)
    return None if text is None else msgspec.json.decode(text, type=FrameNote)


def note_of(field: pa.Field) -> Note | None:
    """The note of a field; None if it was not put by pandas.

    Raises
    ------
    msgspec.ValidationError
        There is one, of another form than ours.
    """
    text = (field.metadata or {}).get(NOTE)
    return None if text is None else msgspec.json.decode(text, type=Note)


def noted(field: pa.Field, note: Note | None) -> pa.Field:
    """A field with this note."""
    metadata = {key: text for key, text in (field.metadata or {}).items() if key != NOTE}
    if note is not None:
        metadata[NOTE] = msgspec.json.encode(note)
    return field.with_metadata(metadata or None)
