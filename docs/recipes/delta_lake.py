"""A Delta Lake table, whose own log records the number of the last batch that was written to it.

Delta calls that an application transaction: the identifier is the log, the topic, the client and its epoch, which is
``batch.token`` without the number; the version is the number of the batch. A seek begins another epoch. If the client
is deleted and created again, its batches are numbered from 1 again, also in another epoch, so none is taken for an
older one.

A new field becomes a new column. Columns of a Delta table do not change their type, and Delta casts values of another
type: 2.5 would become 2. So a value that a column cannot hold exactly is an error before the batch is stored.
In that case write the table with another type, by ``write_deltalake(..., mode="overwrite",
schema_mode="overwrite")``, which keeps the number of the last batch, and run this again.

    python delta_lake.py events.db table
"""

import json
import sys

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

import pqlog

CLIENT = "to-delta"


def load(log: pqlog.Log, table: str, size: int = 50_000) -> None:
    """Append what the client has not acknowledged to the table."""
    for batch in log.batches(CLIENT, size=size):
        application = batch.token.rpartition("/")[0]
        written = DeltaTable(table).transaction_version(application) if DeltaTable.is_deltatable(table) else None
        if written is None or written < batch.number:
            once = CommitProperties(app_transactions=[Transaction(application, batch.number)])
            frame = fit(batch.to_arrow(), table)
            write_deltalake(table, frame, mode="append", schema_mode="merge", commit_properties=once)


def fit(frame: pa.Table, table: str) -> pa.Table:
    """The frame in the types of the table; the table gets a column for each new field."""
    frame = frame.select([field.name for field in frame.schema if field.type != pa.null()])  # null: no type yet
    if not DeltaTable.is_deltatable(table) or set(frame.column_names) - set(schema(table).names):
        write_deltalake(table, frame.slice(0, 0), mode="append", schema_mode="merge")
    there = schema(table)
    wanted = pa.schema([there.field(name) for name in frame.column_names])
    return pa.Table.from_arrays(list(map(exactly, frame.columns, frame.schema, wanted)), schema=wanted)


def schema(table: str) -> pa.Schema:
    """The columns of the table."""
    return pa.schema(DeltaTable(table).schema().to_arrow())


def exactly(column: pa.ChunkedArray, had: pa.Field, wanted: pa.Field) -> pa.ChunkedArray:
    """The column in the type that the table has, with the same values."""
    if kind(wanted) == "JSON text" != kind(had):
        texts = [None if value is None else json.dumps(value) for value in column.to_pylist()]
        return pa.chunked_array([pa.array(texts, pa.string())])
    if pa.types.is_dictionary(had.type):  # a category: its values
        had = had.with_type(had.type.value_type)
        column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], had.type)
    try:
        if kind(wanted) == kind(had):
            found = column.cast(wanted.type)
            if wanted.type == had.type or found.cast(had.type) == column:
                return found
    except pa.ArrowInvalid:  # a fraction, or a part of a second, would be lost
        pass
    raise TypeError(
        f"the column {had.name!r} is {wanted.type} ({kind(wanted)}) and cannot hold the new values exactly, which are "
        f"{had.type} ({kind(had)}): write the table with a type that holds both, and run this again"
    )


def kind(field: pa.Field) -> str:
    """The kind of values of a type, whatever its width."""
    if (field.metadata or {}).get(b"pqlog") == b"json":
        return "JSON text"  # for objects, lists, and values of several types
    of = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_nested(of):
        return str(of).partition("<")[0].removeprefix("large_")
    if pa.types.is_integer(of) or pa.types.is_floating(of):
        return "number"
    if pa.types.is_timestamp(of):
        return "time" if of.tz is None else "time with a zone"
    return str(of).removeprefix("large_").removesuffix("_view")


if __name__ == "__main__":
    with pqlog.open(sys.argv[1]) as log:
        load(log, sys.argv[2], *map(int, sys.argv[3:]))
