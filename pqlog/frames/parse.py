"""JSON lines to columns: by pyarrow's parser if every value comes out exactly, else by decoding message by message.

The types of the columns are inferred by decoding the first messages. From then on pyarrow's parser is given these types
as its schema, so that it never infers one itself. A value that does not fit makes it fail, and those lines are decoded
message by message instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json

from pqlog.codecs import UNDECODABLE
from pqlog.frames.arrow_types import MAX_EXACT_INTEGER
from pqlog.frames.columns import check_field_count, is_json, json_field, make_table, table_of

SAMPLE_ROWS = 1_000
"""Messages that are decoded first, to infer types."""
DECODED_ROWS = 10_000
"""Messages that are decoded at a time, which limits how many Python objects exist at once."""
PARSER_BLOCK_BYTES = 1 << 20
"""How much pyarrow's parser gives to one of its threads."""

decode_lines = msgspec.json.Decoder().decode_lines
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode_lines


class JsonParser:
    """Parses JSON lines, block after block; the types inferred from one block serve the next.

    Parameters
    ----------
    fields : frozenset of str, optional
        The only fields to read.
    mixed : frozenset of str
        Fields whose values must each stay as they are, of whatever types they are.
    """

    def __init__(self, fields: frozenset[str] | None, mixed: frozenset[str] = frozenset()) -> None:
        self._fields, self._mixed = fields, mixed
        self._schema: dict[str, pa.Field] = {}
        if fields is not None:  # not seen yet: to the parser any value is an error, upon which its type is inferred
            self._schema = {name: pa.field(name, pa.null()) for name in sorted(fields)}
            self._schema |= {name: json_field(name) for name in sorted(fields & mixed)}
        self._has_sample = False

    def parse(self, text: bytes, rows: int) -> Iterator[pa.Table]:
        """The fields of lines as tables, in order; there is a line for each row."""
        table = self._parse(text, rows) if self._has_sample else None
        if table is not None:
            yield table
        else:
            yield from self._decode(text, rows)

    def _decode(self, text: bytes, rows: int) -> Iterator[pa.Table]:
        """Message by message, inferring types; after the first sample, the parser takes over if it can."""
        lines = text.split(b"\n")
        if len(lines) != rows:  # of a foreign file: a value may have line feeds
            lines = [text]
        start, size = 0, DECODED_ROWS if self._has_sample else SAMPLE_ROWS
        while start < len(lines):
            part = lines[start : start + size]
            values = decode_lines(b"\n".join(part))
            if len(values) != (len(part) if len(lines) == rows else rows):
                raise ValueError("a message is a blank line, or several values")
            table = table_of(values, self._fields, self._mixed)
            self._widen(table.schema)
            yield table
            start += len(part)
            if not self._has_sample:
                self._has_sample = True
                rest = lines[start:]
                parsed = self._parse(b"\n".join(rest), len(rest)) if rest else None
                if parsed is not None:
                    yield parsed
                    return
            size = DECODED_ROWS

    def _widen(self, schema: pa.Schema) -> None:
        for field in schema:
            before = self._schema.get(field.name)
            self._schema[field.name] = field if before is None else _wider(before, field)
        check_field_count(len(self._schema))

    def _parse(self, text: bytes, rows: int) -> pa.Table | None:
        """By pyarrow's parser; None if a field is new, or a value does not fit the type of its field."""
        if not text.startswith(b"{"):
            return None
        json_fields = [field for field in self._schema.values() if is_json(field)]
        json_texts = self._json_texts(text, json_fields) if json_fields else {}
        if json_texts is None:
            return None
        plain = pa.schema([field for field in self._schema.values() if not is_json(field)])
        unexpected = "error" if self._fields is None and not json_fields else "ignore"
        table = _read_json(text, pa.json.ParseOptions(explicit_schema=plain, unexpected_field_behavior=unexpected))
        if table is None or table.num_rows != rows or not _is_exact(table, text):
            return None
        columns = dict(zip(table.column_names, table.columns, strict=True)) | json_texts
        return make_table(list(self._schema.values()), [columns[name] for name in self._schema], rows)

    def _json_texts(self, text: bytes, fields: Sequence[pa.Field]) -> dict[str, pa.Array] | None:
        """The JSON text of nested and mixed fields; None if a line has an unknown field."""
        try:
            rows = _decode_raw(text)
        except UNDECODABLE:
            return None
        if self._fields is None and not all(map(self._schema.keys().__ge__, map(dict.keys, rows))):
            return None
        return {field.name: _json_texts_of([row.get(field.name) for row in rows]) for field in fields}


def _json_texts_of(values: Sequence[msgspec.Raw | None]) -> pa.Array:
    texts = [None if value is None else bytes(value) for value in values]
    return pa.array([None if text == b"null" else text for text in texts], pa.binary()).cast(pa.string())


def _wider(one: pa.Field, other: pa.Field) -> pa.Field:
    """The field to give to the parser where both occurred."""
    if one.equals(other, check_metadata=True) or pa.types.is_null(other.type):
        return one
    if pa.types.is_null(one.type):
        return other
    if {one.type, other.type} == {pa.int64(), pa.float64()}:
        return pa.field(one.name, pa.float64())
    return json_field(one.name)


def _is_exact(table: pa.Table, text: bytes) -> bool:
    """Whether the parser's result has exactly the values of the lines."""
    if all(column.null_count for column in table.columns) and (b"\nnull\n" in text or text.endswith(b"\nnull")):
        return False  # the parser takes a null for an object without fields
    doubles = [column for column in table.columns if pa.types.is_floating(column.type)]
    return all((pc.max(pc.abs(column)).as_py() or 0) < MAX_EXACT_INTEGER for column in doubles)


# Arrow's own allocator keeps the memory that the parser frees: with it, a million messages peak at 216 MB, not 150.
_POOL = pa.system_memory_pool()


def _read_json(text: bytes, options: pa.json.ParseOptions) -> pa.Table | None:
    for block_size, threads in ((PARSER_BLOCK_BYTES, True), (len(text) + 1, False)):  # a line must fit into a block
        read = pa.json.ReadOptions(block_size=block_size, use_threads=threads)
        try:
            return pa.json.read_json(pa.BufferReader(text), read_options=read, parse_options=options, memory_pool=_POOL)
        except pa.ArrowInvalid as error:
            if "straddling" not in str(error):
                return None
    return None
