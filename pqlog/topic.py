"""Topic: a named, append-only sequence of messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from pqlog import check, extras, producer
from pqlog.batch import Batch
from pqlog.client import Client
from pqlog.clients import Clients, client_name, client_table
from pqlog.codecs import unencodable
from pqlog.errors import ArgumentError, EncodeError, Error
from pqlog.partition import Messages, Partition
from pqlog.partitioning import Partitioner
from pqlog.reading import HandedOut
from pqlog.sender import Sender
from pqlog.store.values import Output, PartitionOffset, Put, Singles, Span
from pqlog.stream import TopicStream

if TYPE_CHECKING:
    from pqlog.notebook.explorer import Explorer


class Topic(Messages):
    """A named, append-only sequence of messages, in one partition or several.

    Created by ``log.topic(name)``; a log is one itself. With several partitions, the messages are read merged: by time,
    then partition, then offset, which only ever grows at its end. Offsets are those of one: see `partition`.

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

    def __init__(self, stream: TopicStream, handed_out: HandedOut | None = None, sender: Sender | None = None) -> None:
        super().__init__(stream)
        self.sender = Sender(stream.log) if sender is None else sender
        self._partitioner = Partitioner(len(stream.partitions), stream.partitions[0].info.max_bytes)
        self._only = stream.partitions[0] if len(stream.partitions) == 1 else None
        self._handed_out = HandedOut() if handed_out is None else handed_out

    @property
    def name(self) -> str:
        """The topic's name."""
        return self.stream.name

    @property
    def codec(self) -> str:
        """The name of the codec that the topic was created with."""
        return self.stream.codec_name

    @property
    def partitions(self) -> int:
        """How many partitions the topic has; that never changes."""
        return len(self.stream.partitions)

    def partition(self, number: int) -> Partition:
        """One partition of the topic; its messages can be selected by offset.

        Parameters
        ----------
        number : int
            From 0 up to, not including, `partitions`.

        Examples
        --------
        >>> import pqlog
        >>> orders = pqlog.open(":memory:").topic("orders", partitions=4)
        >>> at = orders.put({"n": 1}, key="Brno")
        >>> orders.partition(at.partition)[at.offset].value
        {'n': 1}
        """
        check.partition(self.name, number, self.partitions)
        return Partition(self.stream.partition(number))

    # putting

    def put(
        self, value: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> int | Any:
        """Append a message; returns when it survives a power failure.

        In a topic with several partitions, it goes into that of its key; without a key, 100 messages go into one
        partition, the next 100 into the next.

        Parameters
        ----------
        value : object
            Anything that the topic's codec takes.
        key : str, optional
            What the message is about: the key itself, where `put_many` takes the name of a field.
        headers : Mapping of str to str, optional
            Metadata stored with the message.
        id : str, optional
            Makes the call idempotent: the same id again puts nothing and returns the first offset, as long as that
            message is kept.

        Returns
        -------
        int or PartitionOffset
            The message's offset; with its partition if the topic has several.

        Raises
        ------
        EncodeError
            The codec cannot encode the value; nothing was put.
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
        >>> log.topic("orders", partitions=8).put("paid", key="order-17")
        PartitionOffset(partition=1, offset=1)
        """
        if self.sender.is_busy:  # it comes behind what this thread has sent
            return self.send(value, key=key, headers=headers, id=id).result()
        codec = self.stream.codec or self.stream.writable()
        try:  # producer.encode in place: each call less counts on the way of a single put
            data = codec.encode(value)
        except Exception as error:
            producer.check_no_frame(value)
            raise self._placed(unencodable(codec, value, error)) from error
        if type(data) is not bytes:
            producer.check_encoded(codec, data)
        if key is not None:
            producer.check_key(key)
        text = producer.header_text(headers) if headers else None
        if id is None and self._only is not None:
            return self._only.append_one(data, key, text)
        partition = self._partitioner.choose(key)
        store = self.stream.partitions[partition]
        if id is None:
            return PartitionOffset(partition, store.append_one(data, key, text))
        producer.check_id(id)
        partition, put = min(store.log.append([Output(store, [Singles([data], [key], text)])], id).items())
        return put.first if self._only is not None else PartitionOffset(partition, put.first)

    def send(
        self, value: Any, *, key: str | None = None, headers: Mapping[str, str] | None = None, id: str | None = None
    ) -> Future[Any]:
        """Put a message without waiting for the disk: returns at once, and the future is done when it is durable.

        What is sent while the disk is busy shares the next sync, so one thread can put thousands of messages a second.
        What a thread sends and puts into one partition is there in the order of its calls. At most 1,000 messages, or
        64 MB, are under way; beyond that `send` waits. `Log.close` waits for all of them, and so does a program's end.

        Parameters
        ----------
        value, key, headers, id
            As for `put`. The value is encoded at once, so it may be changed afterwards.

        Returns
        -------
        concurrent.futures.Future
            Its ``result()`` is what `put` returns, or raises what `put` raises: the failure of one message is told to
            its own future only. ``cancel()`` succeeds as long as the message is not being committed; then it is not
            put. Callbacks run in the thread that commits, one after the other: they should be short.

        Raises
        ------
        ClosedError
            The log was closed.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> futures = [log.send({"n": n}) for n in range(1000)]
        >>> futures[-1].result(), len(log)
        (1000, 1000)
        >>> bad, good = log.send(object()), log.send("good")
        >>> good.result(), type(bad.exception()).__name__
        (1001, 'EncodeError')
        """
        try:
            single = producer.single(self.stream, self._partitioner, value, key, headers, id)
        except Error as error:
            return self.sender.refused(error)
        return self.sender.send(single)

    def put_many(
        self,
        values: Iterable[Any],
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        id: str | None = None,
        cursor: tuple[str, Any, Any] | None = None,
        progress: bool = False,
        ids: str | None = None,
    ) -> Put:
        """Append many messages in one transaction: all or nothing.

        In a topic with several partitions, each message goes into that of its key, and messages of one partition keep
        their order. Without a key, the partitions get runs in turn: of 10,000 values, or of 65,536 rows of a frame.

        Parameters
        ----------
        values : iterable, or pandas, polars or Arrow frame
            Any number of values, in bounded memory. A frame is kept in columns and comes back with its types.
        key : str, optional
            The name of the field that is each message's key, where `put` takes the key itself: text, an integer, a date
            or a UUID, or missing.
        headers : Mapping of str to str, optional
            Metadata stored with each of the messages.
        id : str, optional
            Makes the whole call idempotent, as for `put`.
        ids : str, optional
            Makes each message idempotent: the name of the field that is its id. A message whose id the topic has is
            skipped, as long as the one that was put with it is kept; of several in one call the first is put, or one of
            them if they go into different partitions. Ids are what keys are, but none may be missing or empty.
            Those of `id` are among them; both in one call are refused.
        cursor : tuple of str, object and object, optional
            A name, how far its source has been read now, and how far it was read before: any JSON values, None if it
            was never read. It commits with the messages, even if there are none; `Log.cursor` reads it back. If it is
            not what it was expected to be, another run of the same job was here meanwhile: `CursorError`. Where `id`
            was used before, it is neither looked at nor changed.
        progress : bool
            Show a bar while the values are encoded; they are put when it has come to its end.

        Returns
        -------
        Put
            The offsets of the first and the last message that were put, in each partition if the topic has several, and
            how many they are; with `ids` perhaps fewer than there were values, or none.

        Raises
        ------
        EncodeError
            The codec cannot encode one of the values, or one has no valid key or id; nothing was put.
        CursorError
            Somebody else moved the cursor; nothing was put.
        StoreError
            The disk is full, failing or gone; nothing was put.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many({"n": n} for n in range(1000))
        Put(first=1, last=1000, messages=1000)
        >>> log.put_many([{"city": "Brno"}, {"city": "Praha"}], key="city", id="backfill-2026-11-23")
        Put(first=1001, last=1002, messages=2)
        >>> log.put_many([{"order": 1}, {"order": 2}], ids="order")
        Put(first=1003, last=1004, messages=2)
        >>> log.put_many([{"order": 2}, {"order": 3}], ids="order")    # only the second is new
        Put(first=1005, last=1005, messages=1)
        >>> orders = log.topic("orders", partitions=2)
        >>> orders.put_many([{"city": "Brno"}, {"city": "Praha"}, {"city": "Brno"}], key="city")
        Put(first={0: 1, 1: 1}, last={0: 2, 1: 1}, messages=3)
        """
        codec = self.stream.codec or self.stream.writable()
        if id is not None and ids is not None:
            raise ArgumentError("id is one for all of a call, ids the field that is each message's: give one of them")
        mark = None if cursor is None else producer.cursor_of(cursor)
        if producer.check_id(id) is not None:
            self.sender.flush()
            found = self.stream.partitions[0].find_id(id or "")
            if found is not None:
                return Put.of(found, len(self.stream.partitions))
        total = len(values) if isinstance(values, Sized) else None
        try:
            with extras.progress_bar(total, "put", progress) as report:
                put = producer.chunks(codec, self._partitioner, values, key, headers, ids, report)
        except EncodeError as error:
            raise (self._placed(error) if ids is None else error) from error.__cause__
        try:
            if put.messages or id or mark:
                self.sender.flush()  # it comes behind what this thread has sent
                went = self.stream.partitions[0].log.append(put.outputs(self.stream), id, mark)
                return Put.of(went, len(self.stream.partitions))
        finally:
            put.close()
        end = self.stream.partitions[0].span().stop
        return Put.of({0: Put(end, Span(end, end).last, 0)}, len(self.stream.partitions))

    def _placed(self, error: EncodeError) -> EncodeError:
        """An error with the offset that its message would have had, where that is known."""
        if self._only is None or not self.store.log.capabilities.dense_offsets:
            return error
        return error.placed(index=error.index, offset=self.store.span().stop + error.index)

    # clients

    def client(self, name: str | int | None = None) -> Client:
        """A named reader of the topic: everything about one is a method of it.

        Parameters
        ----------
        name : str or int, optional
            7 is ``"7"``, None is ``""``.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("ab"))
        Put(first=1, last=2, messages=2)
        >>> [list(batch) for batch in log.client("etl").batches(size=1)]
        [['a'], ['b']]
        """
        return Client(self.stream, client_name(name), self._handed_out)

    def clients(self) -> Clients:
        """Where each client of this topic stands, as a table; each topic has clients of its own.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(list("abc"))
        Put(first=1, last=3, messages=3)
        >>> for value in log.get("billing"):
        ...     if value == "b":
        ...         break
        >>> [(client.client, client.position, client.lag) for client in log.clients()]
        [('billing', 2, 2)]
        """
        return client_table(self.stream.partitions)

    def get(
        self,
        client: str | int | None = None,
        *,
        messages: bool = False,
        ack_every: int = 1,
        ack_seconds: float = 1.0,
    ) -> Iterator[Any]:
        """``client(name).get()``: what a client has not acknowledged, one by one; see `Client.get`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> list(log.get("billing"))
        ['a']
        """
        return self.client(client).get(messages=messages, ack_every=ack_every, ack_seconds=ack_seconds)

    def get_blocking(
        self,
        client: str | int | None = None,
        *,
        tick: float | None = None,
        messages: bool = False,
        ack_every: int = 1,
        ack_seconds: float = 1.0,
    ) -> Iterator[Any]:
        """``client(name).get_blocking()``: the same, waiting for more; see `Client.get_blocking`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> next(log.get_blocking("billing"))
        'a'
        """
        client_of = self.client(client)
        return client_of.get_blocking(tick=tick, messages=messages, ack_every=ack_every, ack_seconds=ack_seconds)

    def get_one(self, client: str | int | None = None, *, timeout: float | None = 0, messages: bool = False) -> Any:
        """``client(name).get_one()``: the next message of a client; see `Client.get_one`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put("a")
        1
        >>> log.get_one("billing")
        'a'
        """
        return self.client(client).get_one(timeout=timeout, messages=messages)

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
        ordered: bool = False,
    ) -> Iterator[Batch]:
        """``client(name).batches()``: what a client has not acknowledged, batch by batch; see `Client.batches`.

        Examples
        --------
        >>> import pqlog
        >>> log = pqlog.open(":memory:")
        >>> log.put_many(range(5))
        Put(first=1, last=5, messages=5)
        >>> [list(batch) for batch in log.batches("etl", size=2)]
        [[0, 1], [2, 3], [4]]
        """
        return self.client(client).batches(
            size,
            max_bytes=max_bytes,
            linger=linger,
            follow=follow,
            messages=messages,
            attempts=attempts,
            dead_letter=dead_letter,
            owner=owner,
            ordered=ordered,
        )

    def trigger(self) -> None:
        """Wake every waiting reader of this process to look again; only needed when `tick` is long.

        Examples
        --------
        >>> import pqlog
        >>> pqlog.open(":memory:").trigger()
        """
        self.store.log.wake()

    def _repr_html_(self) -> str:
        return extras.views.or_reason(extras.views.topic_view, self)

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
        Put(first=1, last=2, messages=2)
        >>> log.explore().frame["amount"].tolist()
        [12.5, 3.0]
        """
        return extras.explorer.Explorer(self)

    def __repr__(self) -> str:
        parts = f" in {self.partitions} partitions" if self.partitions > 1 else ""
        try:
            return f"<pqlog.Topic {self.name!r}: {len(self):,} messages{parts}, codec {self.codec}>"
        except Error as error:
            return f"<pqlog.Topic {self.name!r}, codec {self.codec}: {error}>"
