"""Readable: the interface by which histories, batches, topics and logs are read as tables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pqlog import check, extras
from pqlog.errors import ArgumentError
from pqlog.stream import Selection

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from pqlog.frames import View
    from pqlog.frames.live import Live


def selection_of(readable: Readable) -> Selection:
    """The messages that it has now: for the rooms around the core."""
    return readable._selection()


class Readable:
    """What histories, batches and logs have in common: a stretch of a topic, as a table.

    Notes
    -----
    The types of the columns follow from the values, all of them, and from nothing else:

    ===========================================  ===============================  ============================
    values of a field                            Arrow                            pandas
    ===========================================  ===============================  ============================
    integers, 64 bits                            int64                            int64; Int64 if some are missing
    true and false                               bool                             bool; boolean if some are missing
    numbers, some with a fraction                double                           float64
    text                                         string                           str
    objects, lists, mixed, larger integers       string: JSON text                object: the values themselves
    nothing but null                             null                             object
    columns of frames that were put              as they were put                 as they were put
    ===========================================  ===============================  ============================

    Integers beyond 2**53 beside fractions are such mixed values, since no double holds them. A field that is missing
    is null. A field named ``offset``, ``_time``, ``_key`` or ``_headers`` is called ``offset_`` and so on beside the
    log's own.
    """

    _is_cut = False
    """Whether its bounds are given by how many messages it has, so that a field may be in none of them by chance."""

    def _selection(self) -> Selection:
        """The messages as they are now."""
        raise NotImplementedError

    def _view(
        self,
        columns: Sequence[str] | None,
        flatten: bool,
        times: Sequence[str],
        meta: bool | tuple[str, ...] = True,
        lenient: bool = False,
    ) -> View:
        """How it is wanted as a table."""
        for name, given in (("columns", columns), ("times", times)):
            if isinstance(given, str) or (given is not None and not all(isinstance(field, str) for field in given)):
                raise ArgumentError(f"{name} is a list of the names of fields, not {given!r}")
        if columns is not None and len(set(columns)) < len(columns):
            raise ArgumentError(f"columns names a field twice: {columns!r}")
        left_out = [name for name in times if columns is not None and name not in columns]
        if left_out:
            raise ArgumentError(f"times names the field {left_out[0]!r}, which columns leaves out: add it there")
        view: View = extras.frames.View(
            None if columns is None else tuple(columns),
            flatten,
            tuple(times),
            headers=isinstance(meta, tuple) and "headers" in meta,
            lenient=lenient or self._is_cut,
        )
        return view

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool | Sequence[str] = True,
        times: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> pandas.DataFrame:
        """The messages as a pandas frame.

        Parameters
        ----------
        columns : sequence of str, optional
            Only these fields of the messages, in this order; faster than all. One that none of the messages has is an
            error. In a batch, which is cut by number, and in `live`, where it may still come, it is a column of nulls
            (with a warning where another name looks meant). Without any message, all are there, and empty.
        flatten : bool
            Make columns ``outer.inner`` of the fields of nested objects.
        meta : bool or sequence of str
            Give the index ``offset`` and the columns ``_time`` and ``_key`` (if a message has one); or those of
            ``"offset"``, ``"time"``, ``"key"`` and ``"headers"`` that are named: headers are dicts in the column
            ``_headers``. With False, what one `put_many` of a frame put is that frame again, index and dtypes included.
        times : sequence of str
            Fields of ISO 8601 text, or of times, that become ``datetime64[us, UTC]``, or ``datetime64[ns, UTC]`` if
            a value has nanoseconds; a time without a zone is UTC.
        dtype_backend : {"pyarrow", "numpy_nullable"}, optional
            As in pandas.
        progress : bool
            Show a progress bar.

        Returns
        -------
        pandas.DataFrame
            A row for each message; see the notes of the class for the columns' types.

        Raises
        ------
        MissingExtraError
            pandas or pyarrow is not installed.
        DecodeError
            A message cannot be decoded; it carries the offset.
        ArgumentError
            No message has a field that `columns` or `times` names; a field of `times` holds something else, or times
            that no column holds together; or there are more than 5,000 different fields.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "n": 1}, {"city": "Praha", "n": 2}])
        range(1, 3)
        >>> log.to_pandas(["city", "n"]).drop(columns="_time")
                 city  n
        offset
        1        Brno  1
        2       Praha  2
        >>> log.to_pandas(meta=False)
            city  n
        0   Brno  1
        1  Praha  2
        """
        of = _meta(meta)
        view = self._view(columns, flatten, times, of)
        return extras.dataframes.to_pandas(self._selection(), view, of, dtype_backend, progress)

    def to_polars(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool | Sequence[str] = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> polars.DataFrame:
        """The messages as a polars frame, with the columns of `to_arrow`; the parameters are those of `to_pandas`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2}])
        range(1, 3)
        >>> log.to_polars(meta=False)["n"].sum()
        3
        """
        of = _meta(meta)
        view = self._view(columns, flatten, times, of)
        found: polars.DataFrame = extras.frames.to_polars(self._selection(), view, of, progress)
        return found

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool | Sequence[str] = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.Table:
        """The messages as an Arrow table.

        Parameters
        ----------
        columns, flatten, meta, times, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.Table
            ``offset`` (int64), ``_time`` (timestamp[us, UTC]), ``_key`` (string, if a message has one), ``_headers``
            (map of string to string, if asked for), then the fields. Columns of JSON text have the metadata
            ``pqlog: json``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2, "tags": ["a"]}])
        range(1, 3)
        >>> log.to_arrow().select(["n", "tags"]).to_pylist()
        [{'n': 1, 'tags': None}, {'n': 2, 'tags': '["a"]'}]
        """
        of = _meta(meta)
        view = self._view(columns, flatten, times, of)
        return extras.frames.to_arrow(self._selection(), view, of, progress)

    def to_batches(
        self,
        rows: int | None = None,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool | Sequence[str] = True,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.RecordBatchReader:
        """The messages as a stream of Arrow record batches, in bounded memory.

        The schema must be true before the first batch. That of a whole topic is kept as it is learnt; any other long
        stretch is read twice: once to find it out.

        Parameters
        ----------
        rows : int, optional
            Messages in a batch; the last may have fewer. Unless given, the first batches are small, so that they come
            at once, and the others have 65,536 messages.
        columns, flatten, meta, times, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.RecordBatchReader

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> [batch.num_rows for batch in log.to_batches(rows=2)]
        [2, 2, 1]
        """
        of = _meta(meta)
        view = self._view(columns, flatten, times, of)
        return extras.frames.to_batches(self._selection(), view, of, rows, progress)

    def chunks(
        self,
        rows: int = 100_000,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        meta: bool | Sequence[str] = True,
        times: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> Iterator[pandas.DataFrame]:
        """The messages as pandas frames of so many rows, in bounded memory, like ``read_sql(chunksize=)``.

        All frames have the same columns and dtypes; see `to_batches` for what finding them out costs.

        Parameters
        ----------
        rows : int
            Messages in a frame; the last may have fewer.
        columns, flatten, meta, times, dtype_backend, progress
            As for `to_pandas`.

        Yields
        ------
        pandas.DataFrame

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> [int(frame["n"].sum()) for frame in log.chunks(rows=2)]
        [1, 5, 4]
        """
        of = _meta(meta)
        view = self._view(columns, flatten, times, of)
        found: Iterator[pandas.DataFrame] = extras.dataframes.chunks(
            self._selection(), view, of, rows, dtype_backend, progress
        )
        return found

    def head(self, n: int = 5) -> pandas.DataFrame:
        """The first `n` messages as a frame; no more are read.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(9))
        range(1, 10)
        >>> log.head(2)["n"].tolist(), log.tail(2)["n"].tolist()
        ([0, 1], [7, 8])
        """
        return extras.dataframes.head(self._selection(), n)

    def tail(self, n: int = 5) -> pandas.DataFrame:
        """The last `n` messages as a frame.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(9))
        range(1, 10)
        >>> log.history(stop=5).tail(2)["n"].tolist()
        [2, 3]
        """
        return extras.dataframes.tail(self._selection(), n)

    def to_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        rows_per_file: int = 1_000_000,
        partition_by: str | Sequence[str] = (),
        columns: Sequence[str] | None = None,
        flatten: bool = False,
        times: Sequence[str] = (),
        progress: bool = False,
    ) -> list[str]:
        """Write the messages as a dataset of Parquet files, in bounded memory.

        A file holds the messages of a fixed range of offsets, `rows_per_file` of them, and is named by it. It appears
        whole or not at all. So the same call again, after a crash or when the log has grown, completes the dataset:
        what is complete is left alone, and nothing is there twice. All files have one schema: where a new field or a
        new type changed it, the older files are written again.

        Parameters
        ----------
        path : str or os.PathLike
            A folder, made if it is missing.
        rows_per_file : int
            The range of offsets of a file.
        partition_by : str or sequence of str
            Fields whose values become folders, ``city=Brno/``, as Hive, DuckDB, Polars and pandas read them. Where
            some messages have none (``city=__HIVE_DEFAULT_PARTITION__/``), pandas needs ``partitioning=None``.
        columns, flatten, times, progress
            As for `to_pandas`.

        Returns
        -------
        list of str
            The paths of the files that were written now.

        Raises
        ------
        ArgumentError
            The folder holds the export of another log, topic or history, or one that was written with other options;
            or Parquet cannot hold a column, which is named.

        Examples
        --------
        >>> import pandas, pqlog, tempfile
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        range(1, 6)
        >>> folder = tempfile.mkdtemp()
        >>> len(log.to_parquet(folder, rows_per_file=2))
        3
        >>> len(log.to_parquet(folder, rows_per_file=2))       # all is there
        0
        >>> int(pandas.read_parquet(folder)["n"].sum())
        10
        """
        partitions = (partition_by,) if isinstance(partition_by, str) else tuple(partition_by)
        view = self._view(columns, flatten, times)
        written: list[str] = extras.export.to_parquet(
            self._selection(), view, check.path("path", path), rows_per_file, partitions, progress
        )
        return written

    def live(self, columns: Sequence[str] | None = None, *, flatten: bool = False, times: Sequence[str] = ()) -> Live:
        """A frame that grows with the log: each ``refresh()`` reads only what is new.

        Parameters
        ----------
        columns, flatten, times
            As for `to_pandas`, but a field that no message has yet is a column of nulls until one comes.

        Returns
        -------
        Live
            Its ``frame`` is the frame as of the last ``refresh()``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> live = log.live()
        >>> log.put({"n": 1})
        1
        >>> live.refresh()["n"].tolist()
        [1]
        """
        found: Live = extras.live.Live(self, self._view(columns, flatten, times, lenient=True))
        return found

    @property
    def schema(self) -> pyarrow.Schema:
        """The fields of the messages and their types, as Arrow's, without the log's own columns.

        What is known of a whole topic is kept with it, so only messages that came since are read; those of any other
        stretch are read once. Columns of JSON text have the metadata ``pqlog: json``.

        Returns
        -------
        pyarrow.Schema

        Raises
        ------
        MissingExtraError
            pandas or pyarrow is not installed.
        DecodeError
            A message cannot be decoded; it carries the offset.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "n": 1}, {"n": 2}])
        range(1, 3)
        >>> log.schema
        city: string
        n: int64
        """
        found: pyarrow.Schema = extras.frames.schema(self._selection(), self._view(None, False, ()), False)
        return found

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The messages as an Arrow stream, for ``pyarrow.table``, ``polars.DataFrame``, DuckDB and others."""
        return self.to_batches().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The schema of that stream."""
        return extras.frames.schema(self._selection(), self._view(None, False, ()), True).__arrow_c_schema__()


_META = ("offset", "time", "key", "headers")


def _meta(given: bool | Sequence[str]) -> bool | tuple[str, ...]:
    """What is wanted beside the fields."""
    if isinstance(given, bool):
        return given
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise ArgumentError(f"meta is True, False or a list of names such as {list(_META)}, not {given!r}")
    for name in given:
        if name not in _META:
            near = [name[1:]] if name[1:] in _META else check.near(name, _META)
            raise ArgumentError(
                f"meta has no {name!r}: {f'did you mean {near[0]!r}?' if near else f'there are {list(_META)}'}"
            )
    if len(set(given)) < len(given):
        raise ArgumentError(f"meta names something twice: {given!r}")
    return tuple(given)
