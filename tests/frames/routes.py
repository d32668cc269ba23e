"""The contract of a frame that is put: refused with its column's name, or the same again by every route.

Each function here puts a frame into a fresh log in memory and returns a list of what is wrong, route by route, so
that a search finds all routes that fail, and not only the first.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

import pqlog
from pqlog.frames.columns import is_json
from tests.frames.compare import (
    arrow_difference,
    difference,
    missing,
    same,
    same_row_value,
    schema_difference,
    table_difference,
    values_difference,
)

Problems = list[str]
Route = Callable[[], "str | None"]


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


class Checked:
    """What was found wrong so far."""

    def __init__(self) -> None:
        self.problems: Problems = []

    def __call__(self, route: str, check: Route, refusable: bool = False) -> None:
        """Take a route: it must not raise, except for our error if a format cannot hold everything."""
        try:
            found = check()
        except pqlog.Error as error:
            found = None if refusable else f"raised {_said(error)}"
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:  # a panic of polars is no Exception
            found = f"raised raw {_said(error)}"
        if found is not None:
            self.problems.append(f"{route}: {found}")


def put(log: Any, frame: Any, names: Iterator[Any] | list[Any], checked: Checked) -> bool:
    """Put a frame; returns whether it was accepted. If not, the error names the cause, and nothing is in the log."""
    before = len(log)
    try:
        log.put_many(frame)
    except pqlog.Error as error:
        text = str(error)
        told = [word for name in names for word in (repr(name), str(name)) if word]
        if not any(word in text for word in (*told, "the index", "the columns", "labels", "levels", "attrs")):
            checked.problems.append(f"put: refused, but does not say which column: {_said(error)}")
    except Exception as error:
        checked.problems.append(f"put: raised raw {_said(error)}")
    else:
        if len(log) != before + len(frame):
            checked.problems.append(f"put: {len(frame)} rows became {len(log) - before} messages")
        return True
    if len(log) != before or (not before and len(log.to_pandas())):
        checked.problems.append("put: refused, but something is in the log")
    log.put({"after": 1})
    if [message.value for message in log[-1:]] != [{"after": 1}]:
        checked.problems.append("put: refused, and the next put does not come back")
    return False


# rows


def rows_of(log: Any) -> list[Any]:
    """The values by every route that returns values, which must all agree."""
    found = list(log.history().values())
    others = {
        "iterating": [message.value for message in log],
        "get": list(log.get("all")),
        "get again": list(log.get("another")),
        "batches": [value for batch in log.batches("batches", size=3) for value in batch],
        "one by one": [log[offset].value for offset in range(log.first, log.last + 1)],
    }
    for route, values in others.items():
        if not same(found, values):
            raise AssertionError(f"{route} gives {values!r:.200}, values() {found!r:.200}")
    return found


def _cells(column: Any) -> list[Any]:
    if isinstance(column.dtype, pd.ArrowDtype):
        return list(column.array._pa_array.to_pylist())
    return list(column)


def _rows_problem(frame: pd.DataFrame, values: list[Any]) -> str | None:
    if len(values) != len(frame):
        return f"{len(frame)} rows became {len(values)}"
    for position, label in enumerate(frame.columns):
        for number, cell in enumerate(_cells(frame.iloc[:, position])):
            got = list(values[number].values())[position]
            if not same_row_value(cell, got):
                return f"column {label!r}, row {number}: {type(cell).__name__} {cell!r} is {type(got).__name__} {got!r}"
    return None


# pandas


def _columns_problem(frame: pd.DataFrame, got: pd.DataFrame, head: int) -> str | None:
    """Whether the columns behind the log's own are those of the frame, in dtypes and values."""
    if len(got) != len(frame):
        return f"{len(frame)} rows became {len(got)}"
    if got.shape[1] < head + frame.shape[1]:
        return f"{frame.shape[1]} columns became {got.shape[1] - head}"
    for position, label in enumerate(frame.columns):
        found = values_difference(frame.iloc[:, position], got.iloc[:, head + position])
        if found is not None:
            return f"column {label!r}: {found}"
    return None


def _chunks_problem(frame: pd.DataFrame, chunks: list[pd.DataFrame], head: int) -> str | None:
    start = 0
    for chunk in chunks:
        found = _columns_problem(frame.iloc[start : start + len(chunk)], chunk, head)
        if found is not None:
            return f"rows from {start}: {found}"
        start += len(chunk)
    return None if start == len(frame) else f"{len(frame)} rows became {start}"


def pandas_problems(
    frame: pd.DataFrame,
    start: int = 0,
    stop: int | None = None,
    neighbour: Any = None,
    kept: list[bool] | None = None,
) -> Problems:
    """What is wrong with a frame of pandas that is put, and with its rows from `start` to `stop`.

    `neighbour` is a message, or a frame, that comes into the topic as well. `kept` is told whether the frame was taken.
    """
    checked = Checked()
    whole = frame.copy()
    with pqlog.open(":memory:") as log:
        if not put(log, frame, _names(frame), checked):
            return checked.problems
        if kept is not None:
            kept.append(True)
        checked("the frame that was put", lambda: difference(whole, frame))
        if not len(frame):
            checked("nothing", lambda: None if log.to_pandas().empty and not list(log) else "something")
            return checked.problems
        part = slice(start, stop)
        few = frame.iloc[part]
        history = log[1 + start : 1 + start + len(few)]
        checked("to_pandas(metadata=False)", lambda: difference(frame, log.to_pandas(metadata=False)))
        if len(few):
            checked("a slice", lambda: difference(few, history.to_pandas(metadata=False)))
            checked("a slice, rows", lambda: _rows_problem(few, list(history.values())))
            checked("a slice, Arrow", lambda: _slice_problem(log, history, start, len(few)))
        checked("to_pandas()", lambda: _columns_problem(frame, log.to_pandas(), 1))
        checked("chunks", lambda: _chunks_problem(frame, list(log.chunks(chunksize=2)), 1))
        checked(
            "chunks(metadata=False)", lambda: _chunks_problem(frame, list(log.chunks(chunksize=2, metadata=False)), 0)
        )
        checked("head", lambda: _columns_problem(frame.head(2), log.head(2), 1))
        checked("tail", lambda: _columns_problem(frame.tail(2), log.tail(2), 1))
        checked("rows", lambda: _rows_problem(frame, rows_of(log)))
        _arrow_routes(log, checked)
        if neighbour is not None:
            checked("a neighbour", lambda: neighbour_problem(log, frame, neighbour))
    return checked.problems


def as_put_problems(log: Any, frame: pd.DataFrame, start: int = 0, stop: int | None = None) -> Problems:
    """What is wrong with a frame of pandas that is put behind others, as far as it and its rows tell: what is cheap."""
    checked = Checked()
    first = (log.last or 0) + 1
    if put(log, frame, _names(frame), checked) and len(frame):
        few = frame.iloc[start:stop]
        whole = log[first : first + len(frame)]
        part = log[first + start : first + start + len(few)]
        checked("to_pandas(metadata=False)", lambda: difference(frame, whole.to_pandas(metadata=False)))
        checked("rows", lambda: _rows_problem(frame, list(whole.values())))
        if 0 < len(few) < len(frame):
            checked("a slice", lambda: difference(few, part.to_pandas(metadata=False)))
    return checked.problems


def _slice_problem(log: Any, history: Any, start: int, rows: int) -> str | None:
    return table_difference(log.to_arrow(metadata=False).slice(start, rows), history.to_arrow(metadata=False))


def _arrow_routes(log: Any, checked: Checked) -> None:
    found: list[pa.Table] = []
    checked("to_arrow", lambda: found.append(log.to_arrow()))
    if not found:
        return
    table = found[0]
    checked("to_arrow, valid", lambda: table.validate(full=True))
    checked("to_batches", lambda: table_difference(table, log.to_batches(batch_size=2).read_all()))
    checked("pyarrow.table", lambda: table_difference(table, pa.table(log.history())))
    checked("schema", lambda: schema_difference(table.schema, pa.schema(log.history())))
    checked("Arrow and rows", lambda: arrow_rows_problem(log.to_arrow(metadata=False), list(log.history().values())))
    checked("to_polars", lambda: _length_problem(log.to_polars(), len(log)), refusable=True)
    checked("to_pandas(dtype_backend)", lambda: _length_problem(log.to_pandas(dtype_backend="pyarrow"), len(log)))


def _length_problem(got: Any, rows: int) -> str | None:
    return None if len(got) == rows else f"{rows} rows became {len(got)}"


def parquet_problems(frame: Any) -> Problems:
    """What is wrong with the Parquet files of a frame: refused with a column's name, or the same table as Arrow's."""
    import pyarrow.parquet

    checked = Checked()
    with pqlog.open(":memory:") as log, tempfile.TemporaryDirectory() as folder:
        if put(log, frame, _names(frame), checked) and len(log):

            def read() -> str | None:
                [path] = log.to_parquet(folder)
                got, table = pyarrow.parquet.ParquetFile(path).read(), log.to_arrow()
                if got.schema.names != table.schema.names:
                    return f"names {table.schema.names} became {got.schema.names}"
                return _length_problem(got, len(table))

            try:
                checked("to_parquet", read)
            finally:
                refusals = [problem for problem in checked.problems if problem.startswith("to_parquet: raised ")]
                for problem in refusals:
                    if " raised raw " not in problem and any(repr(str(name))[:-1] in problem for name in _names(frame)):
                        checked.problems.remove(problem)
    return checked.problems


def _names(frame: Any) -> list[Any]:
    if isinstance(frame, pd.DataFrame):
        return [*frame.columns, *frame.index.names]
    return list(frame.schema.names if isinstance(frame, pa.Table) else frame.columns)


# Arrow and rows


def plain_json(value: Any) -> Any:
    """A Python value after a round trip as JSON text; NotImplemented if this test does not cover it."""
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, (list, tuple)):
        found = [plain_json(one) for one in value]
        return NotImplemented if any(one is NotImplemented for one in found) else found
    if type(value) is dict and all(type(key) is str for key in value):
        items = {key: plain_json(one) for key, one in value.items()}
        return NotImplemented if any(one is NotImplemented for one in items.values()) else items
    return NotImplemented


def arrow_cell_problem(field: pa.Field, cell: Any, value: Any) -> bool:
    """Whether an Arrow cell differs from the value of the row."""
    if is_json(field):
        if cell is None or missing(value):
            return cell is not None or not missing(value)
        expected = plain_json(value)
        return expected is not NotImplemented and not same(json.loads(cell), expected)
    if isinstance(value, int) and not isinstance(value, bool) and isinstance(cell, float):
        return cell != value or int(cell) != value
    if pa.types.is_dictionary(field.type) and isinstance(cell, str):  # categories of many kinds are text
        return cell not in (str(value), repr(value))
    if isinstance(value, (pd.Period, pd.Interval)):  # Arrow has numbers, or their ends
        return (cell is None) != missing(value)
    return not (same_row_value(cell, value) or same_row_value(value, cell))


def arrow_rows_problem(table: pa.Table, rows: list[Any]) -> str | None:
    """Whether a table without the log's own columns holds what the rows do."""
    if table.num_rows != len(rows):
        return f"{len(rows)} rows became {table.num_rows}"
    columns = {}
    for position in range(table.num_columns):
        try:
            columns[position] = table.column(position).to_pylist()
        except (ValueError, OverflowError, TypeError):  # what Python cannot hold is not in a row either
            continue
    for number, row in enumerate(rows):
        row = row if isinstance(row, dict) else {"value": row}
        for position, cells in columns.items():
            field = table.schema.field(position)
            if arrow_cell_problem(field, cells[number], row.get(field.name)):
                value = row.get(field.name)
                return f"field {field.name!r}, row {number}: {type(value).__name__} {value!r} is {cells[number]!r}"
        for name, value in row.items():
            if value is not None and name not in table.schema.names:
                return f"field {name!r} is missing"
    return None


# neighbours


def _same_cell(cell: Any, got: Any, doubles: bool) -> bool:
    """Whether a cell is what it was, also if others joined the column: an integer may have become its double."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if doubles and isinstance(got, float) and isinstance(cell, int) and not isinstance(cell, bool):
        return got == cell and int(got) == cell
    if missing(got) or (isinstance(got, float) and got != got):
        got = None
    if isinstance(got, (pd.Timestamp, pd.Timedelta)):
        return same_row_value(got, cell) or same_row_value(cell, got)
    return same_row_value(cell, got.tolist() if isinstance(got, (np.generic, np.ndarray)) else got)


def neighbour_problem(log: Any, frame: Any, neighbour: Any) -> str | None:
    """Put a neighbour: everything is still read, and each value is what it was."""
    names = list(log[log.first].value)[: frame.shape[1]]
    rows = len(log)
    try:
        if isinstance(neighbour, (pd.DataFrame, pa.Table)):
            log.put_many(neighbour)
        else:
            log.put(neighbour)
    except pqlog.Error:
        return None
    values = list(log.history().values())
    found = log.to_pandas(metadata=False)
    if len(found) != len(log):
        return f"pandas: {len(log)} messages are {len(found)} rows"
    for position, name in enumerate(names):
        got = found[name].iloc[:rows]
        doubles = str(got.dtype) in ("float64", "Float64", "double[pyarrow]")
        if isinstance(frame, pd.DataFrame):
            cells = _cells(frame.iloc[:, position])
        else:
            cells = [value[name] for value in values[:rows]]
        for number, (cell, one) in enumerate(zip(cells, _cells(got), strict=True)):
            if not _same_cell(cell, one, doubles):
                return f"pandas, column {name!r}, row {number}: {type(cell).__name__} {cell!r} is {one!r} ({got.dtype})"
    found = log.to_pandas()
    if len(found) != len(log):
        return f"pandas with metadata: {len(log)} messages are {len(found)} rows"
    dtypes = list(found.dtypes)
    for chunk in log.chunks(chunksize=2):
        if list(map(str, chunk.dtypes)) != list(map(str, dtypes)):
            return f"chunks: dtypes {dtypes} became {list(chunk.dtypes)}"
    table = log.to_arrow(metadata=False)
    table.validate(full=True)
    problem = arrow_rows_problem(table, values)
    if problem is not None:
        return f"Arrow: {problem}"
    problem = table_difference(log.to_arrow(), log.to_batches(batch_size=2).read_all())
    if problem is not None:
        return f"to_batches: {problem}"
    with contextlib.suppress(pqlog.Error):
        log.to_polars()
    return None


# Arrow and polars


def arrow_problems(
    table: pa.Table, start: int = 0, stop: int | None = None, neighbour: Any = None, kept: list[bool] | None = None
) -> Problems:
    """What is wrong with an Arrow table that is put."""
    checked = Checked()
    with pqlog.open(":memory:") as log:
        if not put(log, table, table.schema.names, checked):
            return checked.problems
        if kept is not None:
            kept.append(True)
        if not table.num_rows:
            return checked.problems
        few = table.slice(start, None if stop is None else stop - start)
        history = log[1 + start : 1 + start + few.num_rows]
        checked("to_arrow(metadata=False)", lambda: table_difference(table, log.to_arrow(metadata=False)))
        if few.num_rows:
            checked("a slice", lambda: table_difference(few, history.to_arrow(metadata=False)))
            checked("a slice, rows", lambda: _length_problem(list(history.values()), few.num_rows))
        checked("rows", lambda: _length_problem(rows_of(log), len(log)))
        _arrow_routes(log, checked)
        checked("to_pandas()", lambda: _length_problem(log.to_pandas(), len(log)))
        checked("to_pandas(metadata=False)", lambda: _length_problem(log.to_pandas(metadata=False), len(log)))
        checked("chunks", lambda: _same_dtypes(list(log.chunks(chunksize=2))))
        checked("head", lambda: _length_problem(log.head(1), 1))
        if neighbour is not None:
            checked("a neighbour", lambda: neighbour_problem(log, table, neighbour))
    return checked.problems


def _same_dtypes(chunks: list[pd.DataFrame]) -> str | None:
    for chunk in chunks[1:]:
        if list(map(str, chunk.dtypes)) != list(map(str, chunks[0].dtypes)):
            return f"dtypes {list(chunks[0].dtypes)} became {list(chunk.dtypes)}"
    return None


def polars_problems(frame: pl.DataFrame, start: int = 0, stop: int | None = None) -> Problems:
    """What is wrong with a polars frame that is put."""
    checked = Checked()
    with pqlog.open(":memory:") as log:
        if not put(log, frame, frame.columns, checked) or not len(frame):
            return checked.problems
        few = frame[start:stop]
        history = log[1 + start : 1 + start + len(few)]
        checked("to_polars(metadata=False)", lambda: polars_difference(frame, log.to_polars(metadata=False)))
        if len(few):
            checked("a slice", lambda: polars_difference(few, history.to_polars(metadata=False)))
        checked("rows", lambda: _polars_rows_problem(frame, rows_of(log)))
        _arrow_routes(log, checked)
        checked("to_pandas()", lambda: _length_problem(log.to_pandas(), len(log)))
        checked("to_pandas(metadata=False)", lambda: _length_problem(log.to_pandas(metadata=False), len(log)))
        checked("chunks", lambda: _same_dtypes(list(log.chunks(chunksize=2))))
    return checked.problems


def polars_difference(one: pl.DataFrame, other: pl.DataFrame) -> str | None:
    """How two polars frames differ."""
    if one.schema != other.schema:
        return f"schema {one.schema} became {other.schema}"
    if len(one) != len(other):
        return f"{len(one)} rows became {len(other)}"
    for name in one.columns:
        found = arrow_difference(pa.chunked_array(one[name].to_arrow()), pa.chunked_array(other[name].to_arrow()))
        if found is not None:
            return f"column {name!r}: {found}"
    return None


def _polars_rows_problem(frame: pl.DataFrame, values: list[Any]) -> str | None:
    for number, (row, got) in enumerate(zip(frame.rows(), values, strict=True)):
        for name, cell, value in zip(frame.columns, row, got.values(), strict=True):
            if not (same_row_value(cell, value) or same_row_value(value, cell)):
                return f"column {name!r}, row {number}: {type(cell).__name__} {cell!r} is {value!r}"
    return None
