"""Log and Topic: what a user holds. They join the rooms below and do nothing themselves."""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

from pqlog import check, clients, delivery, extras, history, producer
from pqlog.batches import Batch
from pqlog.codecs import Codec, codec_for, unencodable
from pqlog.errors import ArgumentError, CodecMismatchError, CorruptLogError, EncodeError, Error, UnknownTopicError
from pqlog.history import History, Time
from pqlog.message import Message
from pqlog.readable import Readable
from pqlog.source import Source, Stretch
from pqlog.store.api import Engine, Moved, Row, Salvage, Singles, Span, TopicInfo

if TYPE_CHECKING:
    import pandas

    from pqlog.notebook.explorer import Explorer
    from pqlog.pipe import Summary
    from pqlog.store.api import ClientInfo

TIMEOUT_S = 30.0
NEAR = 50
"""How many names before and behind one that may be misspelt are compared with it."""


class Topic(Readable):
    """A named, ordered, append-only sequence of messages in a file. Made by ``log.topic(name)``; a log is one itself.

    Examples
    --------
    >>> import pqlog
    >>> log = pqlog.open(":memory:")
    >>> clean = log.topic("clean")
    >>> clean.put({"n": 1})
    1
    >>> len(clean), len(log)
    (1, 0)
    """

    def __init__(self, engine: Engine, info: TopicInfo, codec: Codec | None, one_by_one: delivery.OneByOne) -> None:
        self._engine, self._info, self._codec, self._one_by_one = engine, info, codec, one_by_one
        self._source = Source(engine, info, codec)

    @property
    def name(self) -> str:
        """The topic's name."""
        return self._info.name

    @property
    def codec(self) -> str:
        """The name of the codec that the topic was made with."""
        return self._info.codec

    def _other(self, name: str) -> Topic:
        """A topic of the same file that exists."""
        info, codec = _topic(self._engine, name, None, None, writes=False)
        return Topic(self._engine, info, codec, self._one_by_one)

    # putting

    def put(
        self, value: Any, key: str | None = None, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> int:
        """Append a message; returns when it survives a power failure.

        Parameters
        ----------
        value : object
            Anything that the topic's codec takes.
        key : str, optional
            What the message is about.
        headers : Mapping of str to str, optional
            Notes beside the value.
        id : str, optional
            Makes the call idempotent: the same id again puts nothing and returns the first offset, as long as that
            message is kept.

        Returns
        -------
        int
            The message's offset.

        Raises
        ------
        EncodeError
            The codec has no form for the value; nothing was put.
        StoreError
            The disk is full, failing or gone; nothing was put.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put({"city": "Brno", "amount": 12.5}, key="cz", headers={"source": "till-3"})
        1
        >>> log.put({"n": 1}, id="order-17"), log.put({"n": 1}, id="order-17")
        (2, 2)
        """
        codec = self._codec or self._source.writable()
        try:  # producer.encode in place: each call less counts on the way of a single put
            data = codec.encode(value)
        except Exception as error:
            raise self._placed(unencodable(codec, value, error)) from error
        if type(data) is not bytes:
            producer.check_encoded(codec, data)
        if key is not None:
            producer.check_key(key)
        text = producer.header_text(headers) if headers else None
        if id is None:
            return self._engine.append_one(self._info, data, key, text)
        producer.check_id(id)
        return self._engine.append(self._info, [Singles([data], [key], text)], id).first

    def put_many(
        self,
        values: Iterable[Any],
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        cursor: tuple[str, Any, Any] | None = None,
        progress: bool = False,
        ids: str | None = None,
    ) -> range:
        """Append many messages in one transaction: all or nothing.

        Parameters
        ----------
        values : iterable, or pandas, polars or Arrow frame
            Any number of values, in bounded memory. A frame is kept in columns and comes back with its types.
        key : str, optional
            The name of the field that is each message's key: text, an integer, a date or a UUID, or missing.
        headers : Mapping of str to str, optional
            Notes beside every one of the values.
        id : str, optional
            Makes the whole call idempotent, as for `put`.
        ids : str, optional
            Makes each message idempotent: the name of the field that is its id. A message whose id the topic has is
            skipped, as long as the one that was put with it is kept; of several in one call the first is put. Ids are
            what keys are, but none may be missing or empty. Those of `id` are among them; both in one call are refused.
        cursor : tuple of str, object and object, optional
            A name, how far its source has been read now, and how far it was read before: any JSON values, None if it
            was never read. It commits with the messages, also if there are none; `Log.cursor` reads it back. If it is
            not what it was expected to be, another run of the same job was here meanwhile: `CursorError`. Where `id`
            was used before, it is neither looked at nor changed.
        progress : bool
            Show a bar while the values are encoded; they are put when it has come to its end.

        Returns
        -------
        range
            The offsets of the messages that were put; with `ids` perhaps of fewer than there were values, or of none.

        Raises
        ------
        EncodeError
            The codec has no form for one of the values, or its key or id is none; nothing was put.
        CursorError
            Somebody else moved the cursor; nothing was put.
        StoreError
            The disk is full, failing or gone; nothing was put.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(1000))
        range(1, 1001)
        >>> log.put_many([{"city": "Brno"}, {"city": "Praha"}], key="city", id="backfill-2026-11-23")
        range(1001, 1003)
        >>> log.put_many([{"order": 1}, {"order": 2}], ids="order")
        range(1003, 1005)
        >>> log.put_many([{"order": 2}, {"order": 3}], ids="order")    # only the second is new
        range(1005, 1006)
        """
        codec = self._codec or self._source.writable()
        if id is not None and ids is not None:
            raise ArgumentError("id is one for all of a call, ids the field that is each message's: give one of them")
        mark = None if cursor is None else producer.cursor_of(cursor)
        if producer.check_id(id) is not None:
            found = self._engine.find_id(self._info, id or "")
            if found is not None:
                return range(found.first, found.stop)
        total = len(values) if isinstance(values, Sized) else None
        try:
            with extras.progress_bar(total, "put", progress) as report:
                put = producer.chunks(codec, values, key, headers, ids, report)
        except EncodeError as error:
            raise (self._placed(error) if ids is None else error) from error.__cause__
        try:
            something = put.messages or id or mark
            went = self._engine.append(self._info, put.chunks, id, mark, put.ids) if something else self._nothing()
        finally:
            put.close()
        return range(went.first, went.stop)

    def _nothing(self) -> Span:
        stop = self._engine.span(self._info).stop
        return Span(stop, stop)

    def _placed(self, error: EncodeError) -> EncodeError:
        return error.placed(index=error.index, offset=self._engine.span(self._info).stop + error.index)

    # getting

    def get(self, client: str | int | None = None, messages: bool = False) -> Iterator[Any]:
        """What a client has not acknowledged, one by one, until there is nothing more.

        A message counts as consumed only when the next one is asked for, or the loop ends by itself. After a crash,
        an exception or a ``break`` it comes again. Messages that are put meanwhile are delivered too.

        Parameters
        ----------
        client : str or int, optional
            Its name; each client gets every message. None is ``""``. A new client begins at the start.
        messages : bool
            Give `Message` objects in place of their values.

        Yields
        ------
        object
            The value, or the `Message`.

        Raises
        ------
        ClaimedError
            The client has an open batch.
        DecodeError
            A message cannot be decoded; it carries the offset.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        range(1, 3)
        >>> for value in log.get("billing"):
        ...     print(value)
        ...     break
        a
        >>> list(log.get("billing"))
        ['a', 'b']
        """
        return clients.get(self._source, client, messages)

    def get_blocking(
        self, client: str | int | None = None, tick: float | None = None, messages: bool = False
    ) -> Iterator[Any]:
        """Like `get`, but never ends: waits for more.

        Parameters
        ----------
        client : str, optional
            As for `get`.
        tick : float, optional
            How often to look for messages of other processes while there are none, in seconds; 0.005 unless given.
            Messages of this process wake it at once.
        messages : bool
            As for `get`.

        Yields
        ------
        object
            As for `get`.

        Raises
        ------
        ClosedError
            The log was closed, also while waiting.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> next(log.get_blocking("billing", tick=0.5))
        'a'
        """
        return clients.get_blocking(self._source, client, tick, messages)

    def get_one(self, client: str | int | None = None, timeout: float | None = 0, messages: bool = False) -> Any:
        """The next message of a client; the next call of the same thread acknowledges it.

        Several threads and processes may share a client so: each message is with one of them at a time. What a thread
        had when it ended comes again. A message is a batch of one, so `get` waits for no such client: it raises
        `ClaimedError` while one is out.

        Parameters
        ----------
        client : str, optional
            As for `get`.
        timeout : float, optional
            How long to wait for one, in seconds; None waits until there is one.
        messages : bool
            As for `get`.

        Returns
        -------
        object
            The value, or the `Message`.

        Raises
        ------
        Empty
            None came in time.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        range(1, 3)
        >>> log.get_one("billing"), log.get_one("billing")
        ('a', 'b')
        >>> log.get_one("billing", timeout=0.1)
        Traceback (most recent call last):
        pqlog.errors.Empty: no message for client 'billing' of topic 'main' within 0.1 s
        """
        return self._one_by_one.get_one(self._source, client, timeout, messages)

    def trigger(self) -> None:
        """Wake every waiting reader of this process to look again; only needed when `tick` is long.

        Examples
        --------
        >>> import pqlog
        >>> pqlog.open(":memory:").trigger()
        """
        self._engine.trigger()

    def batches(
        self,
        client: str | int | None = None,
        size: int = 1000,
        *,
        max_bytes: int | None = None,
        linger: float = 0,
        follow: bool = False,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
    ) -> Iterator[Batch]:
        """What a client has not acknowledged, in checkpointed batches, until there is nothing more.

        A batch's boundaries are durable before it is handed out; asking for the next acknowledges it, in one commit
        with what was put through it (`Batch.put_many`). After ``break``, an exception or a crash the same batch comes
        again, with ``attempt`` one higher. Several workers, threads or processes, may share a client: each batch is
        with one of them at a time, and a worker that dies on this host is replaced at once.

        Parameters
        ----------
        client : str, optional
            As for `get`.
        size : int
            How many messages a new batch holds at most.
        max_bytes : int, optional
            How many bytes these take in the file at most; one message may be larger.
        linger : float
            How long to wait for a batch to fill, in seconds.
        follow : bool
            Wait for more messages for ever; ends when the log is closed while it waits.
        messages : bool
            Iterating over a batch gives `Message` objects in place of their values.
        attempts : int, optional
            After so many failures a batch goes whole to `dead_letter`, and the client moves on. Otherwise it is handed
            out until it succeeds; ``log.clients()`` shows the attempts.
        dead_letter : str, optional
            A topic of the same codec; the topic's name with ``.dead`` behind it unless given. Headers say where the
            messages came from and why (see `Batch.reject`); of a frame's, where the first of them did.
        owner : str, optional
            A name for this worker: one that is restarted under the same name gets its batches back at once, on any
            host. Two that run at the same time need two names.

        Yields
        ------
        Batch
            Open for the body of the loop, which gives it back when it is left; `next_batch` takes a single one.

        Raises
        ------
        ClaimLostError
            The batch was handed to another reader of the same client meanwhile; it was not acknowledged here.
        ClosedError
            The log was closed before, or while a batch was being worked on; it was not acknowledged.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(5))
        range(1, 6)
        >>> [list(batch) for batch in log.batches("etl", size=2)]
        [[0, 1], [2, 3], [4]]
        """
        wish = delivery.wish(size, max_bytes, linger, follow, messages, attempts, dead_letter, owner)
        return delivery.Batches(self._source, client, wish, self._sibling)

    def next_batch(
        self,
        client: str | None = None,
        size: int = 1000,
        *,
        timeout: float | None = 0,
        max_bytes: int | None = None,
        linger: float = 0,
        messages: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        owner: str | None = None,
    ) -> Batch | None:
        """One batch, to be acknowledged by ``with batch:`` or ``batch.ack()``; None if there is none.

        The batch is with whoever has it, in any thread; one that nobody has any more comes again.

        Parameters
        ----------
        timeout : float, optional
            How long to wait for one, in seconds; None waits until there is one.
        client, size, max_bytes, linger, messages, attempts, dead_letter, owner
            As for `batches`.

        Returns
        -------
        Batch or None

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(3))
        range(1, 4)
        >>> with log.next_batch("etl", size=2) as batch:
        ...     list(batch)
        [0, 1]
        >>> log.position("etl"), list(log.next_batch("etl"))
        (2, [2])
        """
        wish = delivery.wish(size, max_bytes, linger, False, messages, attempts, dead_letter, owner)
        wait_s = delivery.timeout_s(timeout)
        return delivery.Batches(self._source, client, wish, self._sibling).take(wait_s)

    def pipe(
        self,
        client: str | int,
        function: Callable[[pandas.DataFrame], Any],
        into: str | None = None,
        size: int = 50_000,
        *,
        key: str | None = None,
        index: bool = False,
        workers: int = 1,
        max_bytes: int | None = None,
        linger: float = 0,
        follow: bool = False,
        attempts: int | None = None,
        dead_letter: str | None = None,
        progress: bool = False,
    ) -> Summary:
        """Run a function over a client's batches, as frames; what it returns goes into another topic, exactly once.

        Parameters
        ----------
        client : str
            As for `batches`.
        function : callable
            Is given a DataFrame, the messages' fields as by ``batch.to_pandas(metadata=False)``; returns a frame, or an
            iterable of values, or None for nothing.
        into : str, optional
            A topic of the same file; needed unless the function returns None.
        key : str, optional
            The name of the field that is the key of each message that is put.
        index : bool
            Whether also an index without a name goes along, as for `Batch.put_many`.
        workers : int
            How many processes share the work; the function must be defined at the top of a module then.
        size, max_bytes, linger, follow, attempts, dead_letter
            As for `batches`. With `attempts`, a batch that fails is tried again at once.
        progress : bool
            Show a progress bar: messages to come, messages a second, the time left.

        Returns
        -------
        Summary
            Batches, messages in and out, rejected messages, and seconds.

        Raises
        ------
        Exception
            What the function raised, unless `attempts` is given; its batch comes again at the next call.
        WorkerDiedError
            A process of several was killed; its ``summary`` says what was done. Call it again to go on.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"n": 1}, {"n": None}, {"n": 3}])
        range(1, 4)
        >>> done = log.pipe("cleaner", lambda frame: frame.dropna(), into="clean")
        >>> done.messages_in, done.messages_out, [message.value for message in log.topic("clean")]
        (3, 2, [{'n': 1}, {'n': 3}])
        """
        wish = delivery.wish(size, max_bytes, linger, follow, False, attempts, dead_letter, None)
        pipe = extras.load("pipe")
        done: Summary = pipe.run(self, pipe.Job(client, function, into, key, index, wish), workers, progress)
        return done

    def _sibling(self, name: str, codec: str) -> Source:
        """Another topic of the same file, made with a codec if it is new."""
        if name == self.name:
            return self._source
        info, found = _topic(self._engine, name, None, None, writes=True, default=codec)
        if found is None and self._codec is not None and info.codec == self._codec.name:
            found = self._codec
        return Source(self._engine, info, found)

    def claims(self, client: str | int | None = None) -> list[clients.Claim]:
        """The batches of a client that are handed out and not acknowledged.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(5))
        range(1, 6)
        >>> reading = log.batches("etl", size=2)
        >>> batch = next(reading)
        >>> [(claim.number, claim.first, claim.last, claim.attempt) for claim in log.claims("etl")]
        [(1, 1, 2, 1)]
        """
        return clients.claims(self._source, client)

    # clients

    def clients(self) -> clients.Clients:
        """Where each client stands, as a table.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        range(1, 4)
        >>> for value in log.get("billing"):
        ...     if value == "b":
        ...         break
        >>> [(client.client, client.position, client.lag) for client in log.clients()]
        [('billing', 1, 2)]
        """
        return clients.clients(self._source)

    def position(self, client: str | int | None = None) -> int:
        """The last offset that `client` has acknowledged; 0 if none.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        range(1, 4)
        >>> list(log.get("billing"))
        ['a', 'b', 'c']
        >>> log.position("billing")
        3
        """
        return self._client(client).position

    def lag(self, client: str | int | None = None) -> int:
        """How many messages `client` has not acknowledged.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        range(1, 4)
        >>> next(iter(log.get("etl")))
        'a'
        >>> log.lag("etl")          # "a" was handed out; asking for "b" would acknowledge it
        3
        """
        return self._client(client).lag

    def _client(self, client: str | int | None) -> ClientInfo:
        return clients.info(self._source, client)

    def seek(self, client: str | int | None = None, *, to: int | Time) -> Moved:
        """Move a client; it begins a new epoch, and its open batches are given up.

        Parameters
        ----------
        client : str, optional
            Its name; made known if it is new.
        to : int, datetime, date, timedelta or str
            The offset of the next message that it gets (negative: counted from the end), a time (see `history`),
            ``"start"`` or ``"end"``. What lies outside of what is kept counts as the nearest end.

        Returns
        -------
        Moved
            How many messages will come `again`, and how many are `skipped`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abcd"))
        range(1, 5)
        >>> list(log.get("billing"))
        ['a', 'b', 'c', 'd']
        >>> log.seek("billing", to=3)
        Moved(position=2, again=2, skipped=0)
        >>> list(log.get("billing"))
        ['c', 'd']
        """
        return clients.seek(self._source, client, to)

    def unread(self, client: str | int | None = None) -> History:
        """What a client has not acknowledged, as a history: looking never acknowledges.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        range(1, 4)
        >>> next(iter(log.get("etl")))
        'a'
        >>> len(log.unread("etl"))
        3
        """
        return History(self._source, client=self._client(client).client)

    def delete_client(self, client: str | int | None = None) -> None:
        """Forget a client and its position: should it read again, it begins at the start.

        Raises
        ------
        UnknownClientError
            No client of that name has read the topic; `near` holds similar names.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> list(log.get("old"))
        []
        >>> log.delete_client("old")
        >>> len(log.clients())
        0
        """
        clients.delete(self._source, client)

    # history

    def __len__(self) -> int:
        """How many messages are kept."""
        return len(self._engine.span(self._info))

    def __bool__(self) -> bool:
        """A topic is true also while it is empty."""
        return True

    @property
    def first(self) -> int | None:
        """The offset of the first message that is kept; None if there is none."""
        kept = self._engine.span(self._info)
        return kept.first if len(kept) else None

    @property
    def last(self) -> int | None:
        """The offset of the last message; None if none is kept."""
        kept = self._engine.span(self._info)
        return kept.stop - 1 if len(kept) else None

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> History: ...
    def __getitem__(self, index: int | slice) -> Message | History:
        """The message at an offset, or the history of a slice of offsets; negative ones count from the end."""
        if isinstance(index, slice):
            if index.step not in (None, 1):
                raise ArgumentError(f"a history has no step: slice list(log[{index.start}:{index.stop}]) instead")
            return History(self._source, start=index.start, stop=index.stop)
        if isinstance(index, bool) or not isinstance(index, int):
            raise ArgumentError(f"an offset is an int, not {index!r}")
        return history.message_at(self._source, index)

    def __iter__(self) -> Iterator[Message]:
        """All messages that are kept."""
        return iter(self.history())

    def __reversed__(self) -> Iterator[Message]:
        """All messages that are kept, the newest first."""
        return reversed(self.history())

    def history(
        self,
        start: int | None = None,
        stop: int | None = None,
        since: Time | None = None,
        until: Time | None = None,
        key: str | None = None,
    ) -> History:
        """A range of the topic; nothing is read yet.

        Parameters
        ----------
        start, stop : int, optional
            Offsets: from `start` up to, not including, `stop`; negative ones count from the end.
        since, until : datetime, date, timedelta or str, optional
            Times: from `since` up to, not including, `until`. Naive ones are UTC; ``"1h"`` is an hour ago.
        key : str, optional
            Only messages with this key.

        Returns
        -------
        History

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno"}, {"city": "Praha"}], key="city")
        range(1, 3)
        >>> [message.offset for message in log.history(since="1h", key="Praha")]
        [2]
        """
        return History(self._source, start=start, stop=stop, since=since, until=until, key=key)

    def _stretch(self) -> Stretch:
        return self.history()._stretch()

    # keeping

    def trim(self, before: int | Time, force: bool = False) -> int:
        """Drop the messages before an offset or a time, and give their disk space back.

        Parameters
        ----------
        before : int, datetime, date, timedelta or str
            The first offset that is kept (negative: counted from the end), or a time as for `history`.
        force : bool
            Drop also what a client has not acknowledged.

        Returns
        -------
        int
            How many messages were dropped.

        Raises
        ------
        TrimRefusedError
            A client has not acknowledged some of them; nothing was dropped.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abcd"))
        range(1, 5)
        >>> log.trim(before=3)
        2
        >>> log.first, log.put("e")
        (3, 5)
        """
        if isinstance(before, bool):
            raise ArgumentError(f"before is an offset or a time, not {before!r}")
        if isinstance(before, int):
            offset = check.bounded(before) if before >= 0 else self._engine.from_end(self._info, -before)
        else:
            offset = self._engine.offset_at(self._info, history.micros_of(before))
        return self._engine.trim(self._info, offset, force)

    def _repr_html_(self) -> str:
        views = extras.load("notebook.views")
        return views.or_reason(views.topic_view, self)  # type: ignore[no-any-return]

    def explore(self) -> Explorer:
        """An explorer of the file in a notebook: messages, search, live tail, clients; needs the extra ``notebook``.

        Returns
        -------
        Explorer
            A widget; its ``frame`` is the selection as a DataFrame.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"city": "Brno", "amount": 12.5}, {"city": "Praha", "amount": 3.0}])
        range(1, 3)
        >>> log.explore().frame["amount"].tolist()
        [12.5, 3.0]
        """
        return extras.load("notebook.explorer").Explorer(self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        try:
            return f"<pqlog.Topic {self.name!r}: {len(self):,} messages, codec {self.codec}>"
        except Error as error:
            return f"<pqlog.Topic {self.name!r}, codec {self.codec}: {error}>"


class Log(Topic):
    """An open file, and its main topic. Made by `pqlog.open`; close it, or use it in a ``with``.

    Attributes
    ----------
    path : str
        The file, as it was given.

    Examples
    --------
    >>> import pqlog
    >>> with pqlog.open(":memory:") as log:
    ...     offset = log.put({"n": 1})
    ...     log[offset].value, log.topics(), len(log)
    ({'n': 1}, ['main'], 1)
    """

    def __init__(self, path: str, engine: Engine, info: TopicInfo, codec: Codec | None, writes: bool) -> None:
        super().__init__(engine, info, codec, delivery.OneByOne())
        self.path = path
        self._writes = writes

    def topic(self, name: str, codec: str | Codec | None = None, type: Any = None) -> Topic:
        """Another topic of the same file, made if there is none.

        Parameters
        ----------
        name : str
        codec : str or Codec, optional
            As for `pqlog.open`.
        type : type, optional
            As for `pqlog.open`.

        Raises
        ------
        CodecMismatchError
            The topic was made with another codec.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("raw", codec="bytes").put(b"abc")
        1
        >>> log.topics()
        ['main', 'raw']
        """
        info, found = _topic(self._engine, name, codec, type, self._writes)
        return Topic(self._engine, info, found, self._one_by_one)

    def topics(self) -> list[str]:
        """The names of all topics of the file.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("clean").put(1)
        1
        >>> log.topics()
        ['main', 'clean']
        """
        return [info.name for info in self._engine.topics()]

    def rename_topic(self, old: str, new: str) -> None:
        """Give a topic another name. Its messages, clients and ids stay.

        Open `Topic` objects go on with it, under the name that they were opened with.

        Raises
        ------
        UnknownTopicError
            There is no topic `old`.
        ArgumentError
            There is a topic `new`.
        ClaimedError
            A client has an open batch, whose `token` has the topic's name in it.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("flihgts").put("OK1")
        1
        >>> log.rename_topic("flihgts", "flights")
        >>> log.topics(), log.topic("flights")[1].value
        (['main', 'flights'], 'OK1')
        """
        renamed = self._engine.rename_topic(self._other(old)._info, check.name("the topic's name", new))
        if renamed.id == self._info.id:
            self._info = renamed
            self._source = Source(self._engine, renamed, self._codec)

    def delete_topic(self, name: str, force: bool = False) -> None:
        """Drop a topic with its messages, clients and ids, in one transaction, and give its disk space back.

        Whoever has the topic open, in any process, is told `UnknownTopicError` from then on. A topic that is made
        under the same name later is another one. Puts wait meanwhile: `trim` first, if it is large.

        Parameters
        ----------
        name : str
            Not the topic that the log itself stands for.
        force : bool
            Also if a client has not acknowledged all of it.

        Raises
        ------
        UnknownTopicError
            There is no such topic.
        TrimRefusedError
            A client has not acknowledged all of it; nothing was dropped.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.topic("scratch").put(1)
        1
        >>> log.delete_topic("scratch")
        >>> log.topics()
        ['main']
        """
        other = self._other(name)._info
        if other.id == self._info.id:
            raise ArgumentError(f"this log stands for {name!r} itself: open the file at another topic to delete it")
        self._engine.delete_topic(other, force)

    def cursor(self, name: str) -> Any:
        """How far a source outside has been read: what `put_many` was given with its messages; None if nothing yet.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many([{"order": 1}], cursor=("orders-api", {"page": 2}, log.cursor("orders-api")))
        range(1, 2)
        >>> log.cursor("orders-api"), log.cursor("returns-api")
        ({'page': 2}, None)
        """
        return producer.cursor_value(self._engine.cursor(check.name("the name of a cursor", name)))

    @property
    def uuid(self) -> str:
        """What distinguishes this file from every other, copies included."""
        return self._engine.uuid

    def size_bytes(self) -> int:
        """What the file and its write-ahead log take on the disk, in bytes.

        Examples
        --------
        >>> import pqlog
        >>> pqlog.open(":memory:").size_bytes() > 0
        True
        """
        return self._engine.size_bytes()

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Write a consistent copy to a new path while the log is in use.

        The copy has a UUID of its own and the permissions of the log's file. It appears at the path only when it is
        complete and durable.

        Raises
        ------
        ArgumentError
            There is something at the path; it is not replaced.

        Examples
        --------
        >>> import pqlog, tempfile, pathlib
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> path = pathlib.Path(tempfile.mkdtemp(), "copy.db")
        >>> log.backup(path)
        >>> with pqlog.open(path) as copy:
        ...     len(copy), copy.uuid == log.uuid
        (1, False)
        """
        self._engine.backup(check.path("path", path))

    def compact(self) -> int:
        """Write the file anew, without what unused and half-empty pages take; puts wait meanwhile.

        `trim` gives back whole pages by itself; this gives back the rest, and the room of the write-ahead log. It needs
        free space for two copies of what is kept. Where another process is reading, the write-ahead log keeps its copy
        until a put after the reader has gone. A crash in between leaves the file as it was.

        Returns
        -------
        int
            How many bytes shorter the file is.

        Raises
        ------
        DiskFullError
            There is no space for the copies; nothing was changed.

        Examples
        --------
        >>> import pqlog, pathlib, tempfile
        >>> with pqlog.open(pathlib.Path(tempfile.mkdtemp(), "events.db")) as log:
        ...     for _ in range(3):
        ...         _ = log.put_many("x" * 1000 for _ in range(1000))
        ...         _ = log.trim(before=-1)
        ...     log.compact() >= 0, len(log)
        (True, 1)
        """
        return self._engine.compact()

    def verify(self, progress: bool = False) -> list[str]:
        """Read the whole file and say what is wrong with it: SQLite's structures, clients, each message's checksum.

        Parameters
        ----------
        progress : bool
            Show a bar.

        Returns
        -------
        list of str
            A sentence for each problem; empty if the file is whole.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(1000))
        range(1, 1001)
        >>> log.verify()
        []
        """
        total = None
        with contextlib.suppress(CorruptLogError):  # verify will tell
            total = sum(len(self._engine.span(info)) for info in self._engine.topics())
        with extras.progress_bar(total, "verify", progress) as report:
            return self._engine.verify(report)

    def close(self) -> None:
        """Give everything back. Whoever waits in another thread gets `ClosedError`. Closing twice is no error.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.close()
        >>> log.put(1)
        Traceback (most recent call last):
        pqlog.errors.ClosedError: :memory: was closed; this was not put
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        views = extras.load("notebook.views")
        return views.or_reason(views.log_view, self)  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        try:
            counts = [len(self._engine.span(info)) for info in self._engine.topics()]
        except Error:
            return f"<pqlog.Log {self.path!r}, closed>"
        topics = "1 topic" if len(counts) == 1 else f"{len(counts)} topics"
        return f"<pqlog.Log {self.path!r}: {sum(counts):,} messages in {topics}, {self.size_bytes():,} bytes>"


def open(
    path: str | os.PathLike[str],
    topic: str = "main",
    codec: str | Codec | None = None,
    *,
    type: Any = None,
    mode: str = "w",
    vfs: str | None = None,
    timeout: float = TIMEOUT_S,
    network: bool = False,
) -> Log:
    """Open a log; the file is made if it is missing.

    Parameters
    ----------
    path : str or os.PathLike
        The file. ``":memory:"`` keeps everything in memory, for tests.
    topic : str
        The topic that the log itself stands for.
    codec : {"json", "msgpack", "pickle", "bytes"} or Codec, optional
        How a new topic keeps its values: JSON unless said otherwise. A topic keeps the codec that it was made with.
        Reading pickles can run any code, so a pickle topic must be asked for at each opening.
    type : type, optional
        Values are of this msgspec Struct, dataclass, pydantic model or other type (codecs json and msgpack): what
        cannot be read as that is refused at the put.
    mode : {"w", "r"}
        "r" reads a file that exists and changes nothing, also on a read-only disk.
    vfs : str, optional
        The name of a SQLite VFS.
    timeout : float
        How long to wait, in seconds, while another process holds the file.
    network : bool
        Open it although it lies on a network file system, whose locks and syncs may not be what they promise: then
        pqlog cannot keep its promises either.

    Returns
    -------
    Log

    Raises
    ------
    NotALogError
        The path holds something else. Nothing was changed.
    NewerFormatError
        The file was written by a newer pqlog.
    CodecMismatchError
        The topic was made with another codec.
    CorruptLogError
        The file is damaged, or commits in its -wal are.
    UnsafeStorageError
        Durability cannot be had there: a network disk, say, or a file with two names.
    StoreError
        The file cannot be opened.

    Examples
    --------
    >>> import pqlog
    >>> with pqlog.open(":memory:") as log:
    ...     log.put({"n": 1})
    1
    """
    from pqlog.store.sqlite.engine import SqliteEngine

    if mode not in ("w", "r"):
        raise ArgumentError(f'mode is "w" or "r", not {mode!r}')
    timeout_s = check.seconds("timeout", timeout, most=1e6)
    file = check.path("path", path)
    engine = SqliteEngine(file, mode=mode, vfs=vfs, timeout_s=timeout_s, network=network)
    try:
        info, found = _topic(engine, topic, codec, type, writes=mode == "w")
    except BaseException:
        engine.close()
        raise
    return Log(file if file == ":memory:" else str(Path(file)), engine, info, found, mode == "w")


def explore(path: str | os.PathLike[str], topic: str = "main") -> Explorer:
    """The explorer of a file that is opened for reading only: nothing in it can be changed by looking.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    topic : str
        The topic that it shows first.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.db")
    >>> with pqlog.open(path) as log:
    ...     log.put_many([{"n": n} for n in range(100)])
    range(1, 101)
    >>> len(pqlog.explore(path).frame)
    100
    """
    return open(path, topic, mode="r").explore()


def salvage(path: str | os.PathLike[str], to: str | os.PathLike[str], progress: bool = False) -> Salvage:
    """Copy what can still be read of a damaged log into a new one; the old file is not changed.

    Messages keep their times, keys and headers, and are numbered anew. Clients go on with the first message that they
    had not acknowledged; batches that were handed out are cut anew. Nobody may write to the old file meanwhile.

    Parameters
    ----------
    path : str or os.PathLike
        The damaged file, with its -wal beside it if there is one.
    to : str or os.PathLike
        A path that does not exist yet; the new file appears there, with the permissions of the old one, when it is
        complete.
    progress : bool
        Show a bar.

    Returns
    -------
    Salvage
        How many messages were copied, and which were lost.

    Raises
    ------
    ArgumentError
        There is something at `to`.
    CorruptLogError
        Not even its list of topics can be read.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> with pqlog.open(folder / "old.db") as log:
    ...     log.put_many(range(1000))
    range(1, 1001)
    >>> pqlog.salvage(folder / "old.db", folder / "new.db")
    Salvage(messages=1000, lost={}, problems=[])
    """
    from pqlog.store.sqlite import copies, rescue
    from pqlog.store.sqlite.engine import SqliteEngine

    file = check.path("path", path)

    def cut(row: Row, topic: str) -> bytes:
        return row.value if row.is_whole else extras.load("frames").cut(row, topic)

    old = SqliteEngine(file, mode="r", damaged=True)
    try:
        with copies.appearing(check.path("to", to), file) as made:
            copy = SqliteEngine(made, mode="w")
            try:
                with extras.progress_bar(0, "salvage", progress) as report:
                    found = rescue.salvage(old, copy, cut, report)
            finally:
                copy.close()
        return found
    finally:
        old.close()


def read_log(
    path: str | os.PathLike[str],
    topic: str = "main",
    columns: Sequence[str] | None = None,
    *,
    start: int | None = None,
    stop: int | None = None,
    since: Time | None = None,
    until: Time | None = None,
    key: str | None = None,
    codec: str | Codec | None = None,
    flatten: bool = False,
    metadata: bool | Sequence[str] = True,
    parse_dates: Sequence[str] = (),
    dtype_backend: str | None = None,
    progress: bool = False,
) -> pandas.DataFrame:
    """Read a topic of a file into a pandas frame, in the manner of ``pandas.read_sql``; the file is not changed.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    topic : str
        The topic.
    start, stop, since, until, key
        As for `Topic.history`.
    codec
        As for `pqlog.open`: a pickle topic must be asked for.
    columns, flatten, metadata, parse_dates, dtype_backend, progress
        As for `Topic.to_pandas`.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    StoreError
        There is no such file, or it is no log.
    UnknownTopicError
        The file has no such topic.

    Examples
    --------
    >>> import pathlib, pqlog, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp(), "events.db")
    >>> with pqlog.open(path) as log:
    ...     log.put_many({"n": n} for n in range(5))
    range(1, 6)
    >>> pqlog.read_log(path, columns=["n"], start=-2)["n"].tolist()
    [3, 4]
    """
    with open(path, topic, codec, mode="r") as log:
        return log.history(start, stop, since, until, key).to_pandas(
            columns,
            flatten=flatten,
            metadata=metadata,
            parse_dates=parse_dates,
            dtype_backend=dtype_backend,
            progress=progress,
        )


def _topic(
    engine: Engine, name: str, codec: str | Codec | None, type: Any, writes: bool, default: str = "json"
) -> tuple[TopicInfo, Codec | None]:
    """A topic and the codec to read it with; made if it is new."""
    check.name("the topic's name", name)
    found = engine.find_topic(name)
    if found is None:
        known = sorted(info.name for info in engine.topics())
        at = bisect.bisect(known, name)
        similar = check.near(name, known[max(0, at - NEAR) : at + NEAR])
        if not writes:
            # main may not have been asked for: any other may be meant
            raise UnknownTopicError(name, known if name == "main" else similar)
        if similar:
            check.warn(f"topic {name!r} is new and empty; was {' or '.join(map(repr, similar))} meant?")
    asked = None if codec is None else codec_for(codec, type)
    info = found or engine.topic(name, asked.name if asked else default)
    if asked is None:
        if info.codec not in ("json", "msgpack", "bytes"):
            return info, None
        return info, codec_for(info.codec, type)
    if asked.name != info.codec:
        raise CodecMismatchError(name, asked.name, info.codec)
    return info, asked
