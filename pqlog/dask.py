"""A range of a topic as a frame of Dask, whose parts are read by whoever computes them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pqlog import extras
from pqlog.codecs import is_safe
from pqlog.errors import ArgumentError, UnsupportedError
from pqlog.files import open as open_log
from pqlog.frames import Projection
from pqlog.frames.dataframes import frame_of
from pqlog.frames.inference_pass import infer_output
from pqlog.frames.output_schema import OutputSchema
from pqlog.frames.places import by_partition
from pqlog.frames.reading import read_chunks
from pqlog.frames.tables import check_size
from pqlog.store.api import IsAFile
from pqlog.store.values import Span
from pqlog.stream import Selection, TopicStream

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Part:
    """What a process needs to read a part of a range.

    Attributes
    ----------
    path : str
    opening : mapping
        The other parameters of `pqlog.open`.
    topic : str
    codec : str or Codec, optional
    number : int
        That of the topic's partition.
    selection : tuple
        The span, the key and the predicate.
    """

    path: str
    opening: Mapping[str, Any]
    topic: str
    codec: Any
    number: int
    selection: tuple[Span, str | None, Any]


def to_dask(selection: Selection, projection: Projection, messages: int) -> Any:
    """A range as a frame of Dask."""
    check_size("messages_per_part", messages)
    dask = extras.package("dask.dataframe")
    if selection.latest is not None:
        raise ArgumentError("the latest messages change with each put: use history.latest().to_pandas()")
    log = selection.topic.log
    if not isinstance(log, IsAFile) or not log.capabilities.shared_by_processes:
        raise UnsupportedError("Dask's workers open the log themselves, so it has to be in a file: this one is not")
    output = replace(infer_output(selection, projection), cache_check=None)
    parts, firsts = [], []
    for one in by_partition(selection):
        for span in _split(one.topic, one.span, messages):
            codec = None if is_safe(one.topic.codec_name) else one.topic.codec
            number = one.topic.partitions[0].info.partition
            parts.append(Part(log.path, log.opening, one.topic.name, codec, number, (span, one.key, one.where)))
            firsts.append(span.first)
    empty = frame_of([], output, None)
    divisions = None
    if "offset" in output.metadata and parts and not selection.topic.is_merged:
        divisions = (*firsts, max(firsts[-1], selection.span.last))
    with extras.package("dask.config").set({"dataframe.convert-string": False}):  # it would turn objects into text
        if not parts:
            return dask.from_pandas(empty, npartitions=1)
        _check_pickles(parts[0])
        return dask.from_map(read_part, parts, projection=projection, output=output, meta=empty, divisions=divisions)


def _split(topic: TopicStream, span: Span, messages: int) -> Iterator[Span]:
    total = topic.store.count(span)
    for start in range(0, total, messages):
        yield topic.part(span, start, messages)


def _check_pickles(part: Part) -> None:
    try:
        pickle.dumps(part)
    except Exception as error:
        raise ArgumentError(f"Dask's workers cannot be sent what they need to read the log: {error}") from error


def read_part(part: Part, projection: Projection, output: OutputSchema) -> pandas.DataFrame:
    """The frame of a part, read in this process."""
    with open_log(part.path, part.topic, part.codec, **{**part.opening, "readonly": True}) as log:
        span, key, where = part.selection
        selection = Selection(log.stream.partition(part.number), span, key, where=where)
        return frame_of(list(read_chunks(selection, projection, mixed=output.mixed)), output, None)
