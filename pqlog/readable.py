"""Readable: the interface for reading histories, batches, topics and logs as tables."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pqlog import check, extras, fields
from pqlog.errors import ArgumentError
from pqlog.stream import Selection

if TYPE_CHECKING:
    import dask.dataframe
    import pandas
    import polars
    import pyarrow

    from pqlog.frames import Projection
    from pqlog.frames.live import Live


def selection_of(readable: Readable) -> Selection:
    """The messages that a readable covers now, for the packages around the core."""
    return readable._selection()


class Readable:
    """What histories, batches, topics and logs have in common: a range of messages that can be read as a table.

    Notes
    -----
    A column's type is determined by all values of the field in the range, and by nothing else:

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

    Integers beyond 2**53 in a column with fractions count as mixed values, since a double cannot hold them. A missing
    field is null. A field named ``offset``, ``_partition``, ``_time``, ``_key`` or ``_headers`` becomes ``offset_`` and
    so on if the table has the metadata column of that name.

    A topic with several partitions is read as these merged by time, then partition, then offset. Each message has the
    offset of its partition, whose number is in the column ``_partition``.
    """

    _is_cut = False
    """Whether it was cut to a number of messages, so that an optional field may be absent by chance."""

    def _selection(self) -> Selection:
        """The range, with its bounds as of now."""
        raise NotImplementedError

    def _projection(
        self,
        columns: Sequence[str] | None = None,
        flatten: bool = False,
        parse_dates: Sequence[str] = (),
        metadata: bool | Sequence[str] = True,
        lenient: bool = False,
    ) -> Projection:
        """The options of a reading, checked."""
        columns = None if columns is None else _checked_names("columns", columns)
        parse_dates = _checked_names("parse_dates", parse_dates)
        if columns is not None and len(set(columns)) < len(columns):
            raise ArgumentError(f"columns names a field twice: {columns!r}")
        left_out = [name for name in parse_dates if columns is not None and name not in columns]
        if left_out:
            raise ArgumentError(f"parse_dates names the field {left_out[0]!r}, which columns leaves out: add it there")
        projection: Projection = extras.frames.Projection(
            columns,
            flatten,
            parse_dates,
            _checked_metadata(metadata),
            lenient=lenient or self._is_cut,
        )
        return projection

    def to_pandas(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> pandas.DataFrame:
        """The messages as a pandas frame.

        Parameters
        ----------
        columns : sequence of str, optional
            Read only these fields, in this order; faster than reading all. A name that no message has is an error,
            except in a batch, where it may be absent by chance, and in `live`, where it may still arrive: there it is
            a column of nulls, with a warning if it looks misspelt. A range without messages gives all columns, empty.
        flatten : bool
            Turn the fields of nested objects into columns named ``outer.inner``.
        metadata : bool or sequence of str
            Include the messages' metadata: the index ``offset`` and the columns ``_partition`` (if the topic has
            several), ``_time`` and ``_key`` (if any message has a key). A list includes exactly those of ``"offset"``,
            ``"partition"``, ``"time"``, ``"key"`` and ``"headers"`` that it names; headers are dicts in the column
            ``_headers``. With False, a frame that one `put_many` put comes back as it was, with its index and dtypes.
        parse_dates : sequence of str
            Fields with ISO 8601 text, or with times, that become ``datetime64[us, UTC]``, or ``datetime64[ns, UTC]``
            if a value has nanoseconds; times without a zone are taken as UTC.
        dtype_backend : {"pyarrow", "numpy_nullable"}, optional
            As in pandas.
        progress : bool
            Show a progress bar.

        Returns
        -------
        pandas.DataFrame
            One row per message; the class's notes list the types of the columns.

        Raises
        ------
        MissingExtraError
            pandas or pyarrow is not installed.
        DecodeError
            A message cannot be decoded; it carries the offset.
        ArgumentError
            No message has a field that `columns` or `parse_dates` names; a field of `parse_dates` holds something else,
            or times that do not fit into one column; or there are more than 5,000 different fields.
        TrimmedError
            Messages were trimmed while they were read.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "n": 1}, {"city": "Praha", "n": 2}])
        Put(first=1, last=2, messages=2)
        >>> log.to_pandas(["city", "n"]).drop(columns="_time")
                 city  n
        offset
        1        Brno  1
        2       Praha  2
        >>> log.to_pandas(metadata=False)
            city  n
        0   Brno  1
        1  Praha  2
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        return extras.dataframes.to_pandas(self._selection(), projection, dtype_backend, progress)

    def to_polars(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
        progress: bool = False,
    ) -> polars.DataFrame:
        """The messages as a polars frame, with the columns of `to_arrow` and the parameters of `to_pandas`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2}])
        Put(first=1, last=2, messages=2)
        >>> log.to_polars(metadata=False)["n"].sum()
        3
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        frame: polars.DataFrame = extras.frames.to_polars(self._selection(), projection, progress)
        return frame

    def scan(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
    ) -> polars.LazyFrame:
        """The messages as a LazyFrame of polars: a query reads only the columns and the ranges that it needs.

        The range is that of now, also where messages are put later. Of a whole topic that was read before, the columns
        are known; of any other range all messages are read once to infer them, so narrow the query and not the range.

        Parameters
        ----------
        columns, flatten, metadata, parse_dates
            As for `to_pandas`.

        Returns
        -------
        polars.LazyFrame
            With the columns of `to_polars`.

        Examples
        --------
        >>> import polars, pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n, "city": "Brno"} for n in range(1000))
        Put(first=1, last=1000, messages=1000)
        >>> log.scan().filter(polars.col("offset") > 997).select("n").collect()["n"].to_list()
        [997, 998, 999]
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        frame: polars.LazyFrame = extras.scans.to_lazy(self._selection(), projection)
        return frame

    def to_arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.Table:
        """The messages as an Arrow table.

        Parameters
        ----------
        columns, flatten, metadata, parse_dates, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.Table
            ``offset`` (int64), ``_partition`` (int32, if the topic has several), ``_time`` (timestamp[us, UTC]),
            ``_key`` (string, if a message has one), ``_headers`` (map of string to string, if asked for), then the
            fields. Fields of JSON text carry the Arrow metadata ``pqlog: json``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": 2, "tags": ["a"]}])
        Put(first=1, last=2, messages=2)
        >>> log.to_arrow().select(["n", "tags"]).to_pylist()
        [{'n': 1, 'tags': None}, {'n': 2, 'tags': '["a"]'}]
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        return extras.frames.to_arrow(self._selection(), projection, progress)

    def to_dask(
        self,
        columns: Sequence[str] | None = None,
        *,
        messages_per_part: int = 1_000_000,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
    ) -> dask.dataframe.DataFrame:
        """The messages as a frame of Dask, of parts that whoever computes them reads from the file.

        The range is that of now, also where messages are put later. All parts have the columns and the dtypes of
        `to_pandas`, which are inferred first, as for `to_batches`. A topic of several partitions comes partition by
        partition.

        Parameters
        ----------
        columns, flatten, metadata, parse_dates
            As for `to_pandas`.
        messages_per_part : int
            How many messages a part of the frame has.

        Returns
        -------
        dask.dataframe.DataFrame
            Indexed by offset, with known divisions, if the topic has one partition.

        Raises
        ------
        UnsupportedError
            The log is not in a file.

        Examples
        --------
        >>> import pqlog, tempfile
        >>> log = pqlog.open(tempfile.mkdtemp() + "/events.db")
        >>> log.put_many({"n": n} for n in range(1000))
        Put(first=1, last=1000, messages=1000)
        >>> frame = log.to_dask(messages_per_part=300)
        >>> frame.npartitions, int(frame["n"].sum().compute(scheduler="threads"))
        (4, 499500)
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        frame: dask.dataframe.DataFrame = extras.dask.to_dask(self._selection(), projection, messages_per_part)
        return frame

    def to_batches(
        self,
        batch_size: int | None = None,
        *,
        columns: Sequence[str] | None = None,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
        progress: bool = False,
    ) -> pyarrow.RecordBatchReader:
        """The messages as a stream of Arrow record batches, in bounded memory.

        The schema must be known before the first batch. For a whole topic it is cached, in the file if the topic has
        one partition, else while the log is open; any other long range is read twice, the first time to infer it.

        Parameters
        ----------
        batch_size : int, optional
            Messages per batch; the last may have fewer. By default the first batches are small, so that they arrive
            at once, and the others have 65,536 messages.
        columns, flatten, metadata, parse_dates, progress
            As for `to_pandas`.

        Returns
        -------
        pyarrow.RecordBatchReader

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        Put(first=1, last=5, messages=5)
        >>> [batch.num_rows for batch in log.to_batches(batch_size=2)]
        [2, 2, 1]
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        return extras.frames.to_batches(self._selection(), projection, batch_size, progress)

    def chunks(
        self,
        chunksize: int = 100_000,
        *,
        columns: Sequence[str] | None = None,
        flatten: bool = False,
        metadata: bool | Sequence[str] = True,
        parse_dates: Sequence[str] = (),
        dtype_backend: str | None = None,
        progress: bool = False,
    ) -> Iterator[pandas.DataFrame]:
        """The messages as pandas frames of `chunksize` rows, in bounded memory, like ``read_sql(chunksize=)``.

        All frames have the same columns and dtypes; `to_batches` says what inferring them costs.

        Parameters
        ----------
        chunksize : int
            Messages per frame; the last may have fewer.
        columns, flatten, metadata, parse_dates, dtype_backend, progress
            As for `to_pandas`.

        Yields
        ------
        pandas.DataFrame

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        Put(first=1, last=5, messages=5)
        >>> [int(frame["n"].sum()) for frame in log.chunks(chunksize=2)]
        [1, 5, 4]
        """
        projection = self._projection(columns, flatten, parse_dates, metadata)
        frames: Iterator[pandas.DataFrame] = extras.dataframes.chunks(
            self._selection(), projection, chunksize, dtype_backend, progress
        )
        return frames

    def head(self, n: int = 5) -> pandas.DataFrame:
        """The first `n` messages as a frame; reads few others.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(9))
        Put(first=1, last=9, messages=9)
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
        Put(first=1, last=9, messages=9)
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
        parse_dates: Sequence[str] = (),
        progress: bool = False,
    ) -> list[str]:
        """Write the messages as a dataset of Parquet files, in bounded memory.

        Each file has at most `rows_per_file` messages and is named by the offset of the first of them. A topic with
        several partitions is written partition by partition, with their numbers in the names. Repeating the call writes
        only what the folder lacks: after a crash or a kill at any moment, when the log has grown, and when exported
        messages have been trimmed. When it returns, the folder has each message exactly once. Complete files are left
        alone, and the last one is replaced until it is complete. A file appears complete or not at all; with
        `partition_by`, the files of a range appear one after the other, and if that is interrupted, the next call
        completes it first. If another process is exporting to the folder, the call waits.

        All files have one schema; if a new field or a new type changes it, older files are rewritten. Files of messages
        that were trimmed, or are not in this range, stay as they are, with a warning if their columns cannot hold the
        values of the others.

        Parameters
        ----------
        path : str or os.PathLike
            A folder; created if it does not exist.
        rows_per_file : int
            How many messages of the topic a file covers; those of other keys, in a history with a key, are counted.
        partition_by : str or sequence of str
            Fields whose values become folders, ``city=Brno/``, as Hive, DuckDB, Polars and pandas read them. If some
            messages have no value (``city=__HIVE_DEFAULT_PARTITION__/``), pandas needs ``partitioning=None``.
        columns, flatten, parse_dates, progress
            As for `to_pandas`.

        Returns
        -------
        list of str
            The paths of the files that this call added or replaced.

        Raises
        ------
        ArgumentError
            The folder holds other Parquet files, an export of another log, topic or history, or one created with other
            options; it is a file; or Parquet cannot hold a column, which the error names.
        DecodeError
            A message cannot be decoded; it carries the offset.
        DiskFullError, ReadOnlyError, DiskError
            The folder cannot be written to. What was finished is complete; repeat the call to continue.
        TrimmedError
            Messages were trimmed while they were exported; repeat the call to export what is kept.

        Examples
        --------
        >>> import pandas, pqlog, tempfile
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(5))
        Put(first=1, last=5, messages=5)
        >>> folder = tempfile.mkdtemp()
        >>> len(log.to_parquet(folder, rows_per_file=2))
        3
        >>> len(log.to_parquet(folder, rows_per_file=2))       # nothing left to do
        0
        >>> int(pandas.read_parquet(folder)["n"].sum())
        10
        """
        partitions = (partition_by,) if isinstance(partition_by, str) else _checked_names("partition_by", partition_by)
        projection = self._projection(columns, flatten, parse_dates)
        written: list[str] = extras.export.to_parquet(
            self._selection(), projection, check.path("path", path), rows_per_file, partitions, progress
        )
        return written

    def live(
        self, columns: Sequence[str] | None = None, *, flatten: bool = False, parse_dates: Sequence[str] = ()
    ) -> Live:
        """A frame that grows with the log: each ``refresh()`` reads only the new messages.

        Parameters
        ----------
        columns, flatten, parse_dates
            As for `to_pandas`, except that a field that no message has yet is a column of nulls until one arrives.

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
        projection = self._projection(columns, flatten, parse_dates, lenient=True)
        live: Live = extras.live.Live(self, projection)
        return live

    @property
    def schema(self) -> pyarrow.Schema:
        """The fields of the messages and their Arrow types, without the metadata columns.

        The schema of a whole topic is cached with it, so only messages put since then are read; any other range is
        read once. Fields of JSON text carry the Arrow metadata ``pqlog: json``.

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
        Put(first=1, last=2, messages=2)
        >>> log.schema
        city: string
        n: int64
        """
        schema: pyarrow.Schema = extras.frames.schema(self._selection(), self._projection(metadata=False))
        return schema

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The messages as an Arrow stream, for ``pyarrow.table``, ``polars.DataFrame``, DuckDB and others."""
        return self.to_batches().__arrow_c_stream__(requested_schema)

    def __arrow_c_schema__(self) -> object:
        """The schema of that stream."""
        return extras.frames.schema(self._selection(), self._projection()).__arrow_c_schema__()


def _checked_names(option: str, wanted: Iterable[str]) -> tuple[str, ...]:
    """The names of fields that an option has, checked; it may be an iterator."""
    names = tuple(wanted) if isinstance(wanted, Iterable) and not isinstance(wanted, str) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"{option} must be a list of the names of fields, not {wanted!r}")
    return names


def _checked_metadata(wanted: bool | Sequence[str]) -> bool | tuple[str, ...]:
    """The option `metadata`, checked."""
    if isinstance(wanted, bool):
        return wanted
    names = list(fields.METADATA_COLUMNS)
    if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not all(isinstance(name, str) for name in wanted):
        raise ArgumentError(f"metadata must be True, False or a list of names such as {names}, not {wanted!r}")
    for name in wanted:
        if name not in names:
            near = [name[1:]] if name[1:] in names else check.near(name, names)
            raise ArgumentError(
                f"metadata has no {name!r}: {f'did you mean {near[0]!r}?' if near else f'there are {names}'}"
            )
    if len(set(wanted)) < len(wanted):
        raise ArgumentError(f"metadata names something twice: {wanted!r}")
    return tuple(wanted)
