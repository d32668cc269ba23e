"""What is read is what was put, to the type and the last bit; or the put raises an error that it cannot be kept."""

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import math
import pickle
import uuid
import zoneinfo
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog


@dataclasses.dataclass
class Box:
    inside: object
    _private: object = None


class Packed(msgspec.Struct):
    inside: object


class Renamed(msgspec.Struct, rename="camel", omit_defaults=True, tag="renamed"):
    first_one: object = None


class AsArray(msgspec.Struct, array_like=True, tag=True):
    inside: object


class Pair(NamedTuple):
    one: object
    two: object


class Colour(enum.Enum):
    RED = "red"
    TWO = 2
    PAIR = (1, 2)


class Text(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    THREE = 3


class Refused(Exception):
    """A value that is not on the documented list."""


class AsText:
    """Stands for text that converts back to a value."""

    def __init__(self, value):
        self.value = value

    def __eq__(self, text):
        if isinstance(self.value, decimal.Decimal):
            return str(self.value) == text
        made = msgspec.convert(text, type(self.value))
        if isinstance(made, dt.datetime) and made.tzinfo:
            return made.astimezone(dt.UTC) == self.value.astimezone(dt.UTC)
        return made == self.value


TEXTS = (dt.datetime, dt.date, dt.time, dt.timedelta, uuid.UUID, decimal.Decimal)


def kept_as(value, codec):
    """What comes back for a value according to the table in docs/concepts.md; raises `Refused`."""
    if isinstance(value, enum.Enum):
        return kept_as(value.value, codec)
    if value is None or type(value) in (bool, str):
        return value
    if type(value) is int:
        if codec == "msgpack" and not -(2**63) <= value < 2**64:
            raise Refused
        return value
    if type(value) is float:
        if codec == "json" and not math.isfinite(value):
            raise Refused
        return value
    if type(value) is bytes and codec == "msgpack":
        return value
    if type(value) is dt.datetime and value.tzinfo and codec == "msgpack":
        return value.astimezone(dt.UTC)
    if type(value) in TEXTS:
        return AsText(value)
    if isinstance(value, np.generic | np.ndarray):
        return kept_as(value.tolist(), codec)
    if isinstance(value, dict):
        found = {}
        for key, one in value.items():
            key = key.value if isinstance(key, enum.Enum) else key
            if type(key) is not str and (
                codec == "json" or type(key) not in (int, float, bool, bytes, tuple, type(None))
            ):
                raise Refused
            if type(key) is int:
                kept_as(key, codec)
            if key in found:
                raise Refused
            found[key] = kept_as(one, codec)
        return found
    if isinstance(value, list | tuple):
        return [kept_as(one, codec) for one in value]
    if isinstance(value, Box):
        return {"inside": kept_as(value.inside, codec), "_private": kept_as(value._private, codec)}
    if isinstance(value, Packed):
        return {"inside": kept_as(value.inside, codec)}
    if isinstance(value, Renamed):
        rest = {} if value.first_one is None else {"firstOne": kept_as(value.first_one, codec)}
        return {"type": "renamed", **rest}
    if isinstance(value, AsArray):
        return ["AsArray", kept_as(value.inside, codec)]
    raise Refused


def equal(expected, back):
    """Whether two values are the same, including their types."""
    if isinstance(expected, AsText):
        return type(back) is str and expected == back
    if type(expected) is not type(back):
        return False
    if isinstance(expected, dict):
        keys = zip(expected, back, strict=True)
        return (
            len(expected) == len(back)
            and all(equal(*pair) for pair in keys)
            and all(equal(*pair) for pair in zip(expected.values(), back.values(), strict=True))
        )
    if isinstance(expected, list):
        return len(expected) == len(back) and all(map(equal, expected, back))
    return repr(expected) == repr(back) or (expected == back and not isinstance(expected, float))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
ZONES = st.sampled_from([None, dt.UTC, zoneinfo.ZoneInfo("Europe/Prague"), dt.timezone(dt.timedelta(hours=5))])
MODERN = {"min_value": dt.datetime(1950, 1, 1), "max_value": dt.datetime(2100, 1, 1)}
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=3)
ODD = (
    st.datetimes(timezones=ZONES, **MODERN)
    | st.dates()
    | st.times()
    | st.timedeltas(dt.timedelta(-999), dt.timedelta(999))
    | st.uuids()
    | st.decimals()
    | st.sampled_from(
        [*Colour, Text.A, Number.THREE, frozenset({1}), {1, 2}, object(), 1j, msgspec.UNSET, pd.NA, pd.NaT]
    )
    | st.sampled_from([np.int64(4), np.float32(0.5), np.float64("nan"), np.bool_(True), np.array([1, 2]), np.array([])])
    | st.sampled_from([np.datetime64(1, "s"), np.array([b"a"]), np.array(["x"]), np.array([math.inf])])
)
KEYS = TEXT | st.integers() | st.floats(allow_nan=False) | st.sampled_from([*Colour, Text.A, None, True, b"b", (1, 2)])
VALUES = st.recursive(
    PLAIN | ODD,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXT, inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(TEXT, inner, max_size=3).map(collections.OrderedDict)
        | st.builds(Box, inner)
        | st.builds(Packed, inner)
        | st.builds(Renamed, inner)
        | st.builds(AsArray, inner)
        | st.builds(Pair, inner, inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@given(values=st.lists(VALUES, min_size=1, max_size=4))
def test_a_value_comes_back_as_the_documents_say_or_is_refused(codec, values):
    kept, refused = [], []
    for value in values:
        try:
            kept.append((value, kept_as(value, codec)))
        except Refused:
            refused.append(value)
    with pqlog.open(":memory:", codec=codec) as log:
        for value in refused:
            with pytest.raises(pqlog.EncodeError):
                log.put(value)
            with pytest.raises(pqlog.EncodeError):
                log.put_many([1, value])
        assert len(log) == 0
        for value, _ in kept:
            log.put(value)
        log.put_many([value for value, _ in kept])
        for (value, expected), back in zip(kept * 2, log.history().values(), strict=True):
            assert equal(expected, back), (value, back)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (Box(msgspec.UNSET), r"\$\.inside would come back as nothing"),
        ([Packed(msgspec.UNSET)], r"\$\[0\]\.inside would come back as nothing"),
        (math.nan, r'cannot put a float .*: it would come back as None; a topic with codec="msgpack" takes it'),
        ({"a": [{"b c": -math.inf}]}, r"\$\.a\[0\]\['b c'\] would come back as None"),
        ({"a": b"x"}, r"cannot put a bytes .*: \$\.a would come back as 'eA=='; a topic with codec=\"msgpack\""),
        ({"tags": {1}}, r'a set .*: \$\.tags would come back as \[1\]; a topic with codec="pickle" takes it'),
        ({1: "a", "1": "b"}, "has the key 1, which would come back as text"),
        ({"x": {2: 3}}, r"\$\.x has the key 2, which would come back as text"),
        (np.datetime64(1, "ns"), "cannot be encoded"),
        (np.array(["NaT"], "M8[s]"), "cannot be encoded"),
        (pd.Timestamp(1), "cannot be encoded"),
        (dt.datetime(1890, 1, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Amsterdam")), "would come back as '1890"),
        ({"a": "\ud800"}, "surrogates not allowed"),
    ],
)
def test_what_json_would_change_is_refused_with_its_place_and_the_codec_that_takes_it(log, value, says):
    with pytest.raises(pqlog.EncodeError, match=says):
        log.put(value)
    with pytest.raises(pqlog.EncodeError, match=says) as caught:
        log.put_many([0, value])
    assert (caught.value.index, caught.value.offset) == (1, 2)
    log.topic("source").put(1)
    for batch in log.topic("source").batches("stage"):
        with pytest.raises(pqlog.EncodeError, match=says):
            batch.put(value, topic="main")
        with pytest.raises(pqlog.EncodeError, match=says):
            batch.put_many([value], topic="main")
    assert len(log) == 0


def test_a_clock_that_repeats_an_hour_is_no_change(log):
    prague = zoneinfo.ZoneInfo("Europe/Prague")
    for fold, text in ((0, "2026-10-25T02:30:00+02:00"), (1, "2026-10-25T02:30:00+01:00")):
        when = dt.datetime(2026, 10, 25, 2, 30, fold=fold, tzinfo=prague)
        assert log[log.put(when)].value == text
        packed = log.topic("packed", codec="msgpack")
        assert packed[packed.put(when)].value == when.astimezone(dt.UTC)


@pytest.mark.parametrize("value", [math.nan, {1}, b"x", {1: 2}, object(), "\ud800"])
def test_a_cursor_too_keeps_what_json_keeps(log, value):
    with pytest.raises(pqlog.ArgumentError, match="the cursor 'c' has a value that JSON does not hold as it is"):
        log.put_many([1], cursor=("c", {"at": value}, None))
    assert (len(log), log.cursor("c")) == (0, None)
    log.put_many([1], cursor=("c", {"at": (1, 2)}, None))
    assert log.cursor("c") == {"at": [1, 2]}


class Sale(msgspec.Struct):
    city: str
    amount: float
    tags: set[str] = set()


@dataclasses.dataclass
class DataSale:
    city: str
    amount: float
    tags: frozenset[str] = frozenset()


class ModelSale(pydantic.BaseModel):
    city: str
    amount: float
    tags: set[str] = set()
    when: dt.datetime = dt.datetime(2026, 1, 1)


@pytest.mark.parametrize("codec", ["json", "msgpack"])
@pytest.mark.parametrize("kind", [Sale, DataSale, ModelSale, dict[str, ModelSale], list[Sale]])
def test_a_typed_topic_can_always_be_read(path, codec, kind):
    made = {
        Sale: Sale("Brno", 1.5, {"x"}),
        DataSale: DataSale("Brno", 1.5, frozenset({"x"})),
        ModelSale: ModelSale(city="Brno", amount=1.5, tags={"x"}),
        dict[str, ModelSale]: {"one": ModelSale(city="Brno", amount=1.5)},
        list[Sale]: [Sale("Brno", 1.5)],
    }
    good = made.get(kind)
    with pqlog.open(path, codec=codec, type=kind) as log:
        log.put(good)
        log.put_many([good] * 3)
        for wrong in ({"city": 3}, 5, [3], {"city": "Brno", "amount": "much"}, {"one": {}}):
            for put in (log.put, lambda value: log.put_many([good, value])):
                with pytest.raises(pqlog.EncodeError, match="the type that the topic was opened with"):
                    put(wrong)
        for batch in log.batches("stage"):
            with pytest.raises(pqlog.EncodeError, match="the type that the topic was opened with"):
                batch.put(5, topic="main")
        assert list(log.get("c")) == [good] * 4
        with pytest.raises(pqlog.ArgumentError, match="a frame comes back as dicts"):
            log.put_many(pd.DataFrame({"city": ["Brno"], "amount": [1.0]}))
        assert log.client("p").pipe(lambda frame: None, attempts=1).rejected == 0


def test_a_typed_topic_takes_what_can_be_read_as_its_type(log):
    sales = log.topic("sales", type=Sale)
    sales.put({"city": "Brno", "amount": 2})
    assert sales[1].value == Sale("Brno", 2.0)


def test_a_pydantic_model_is_an_object_of_its_fields(log):
    model = ModelSale(city="Brno", amount=1.5)
    log.put(model)
    log.put_many([model, {"nested": model}])
    plain = {"city": "Brno", "amount": 1.5, "tags": [], "when": "2026-01-01T00:00:00"}
    assert [message.value for message in log] == [plain, plain, {"nested": plain}]
    with pytest.raises(pqlog.EncodeError, match=r"cannot put a .*ModelSale"):
        log.put(ModelSale(city="Brno", amount=math.nan))
    with pytest.raises(pqlog.ArgumentError, match=r"ModelSale is one value: use put\(value\), or put_many"):
        log.put_many(model)


def test_a_message_can_be_copied_and_sent_to_another_process(log):
    log.put({"n": 1})
    log.put({"n": 2}, headers={"a": "b"})
    for message in log:
        assert pickle.loads(pickle.dumps(message)) == message
        assert dataclasses.asdict(message)["value"] == message.value
    assert pd.DataFrame(log[:])["value"].tolist() == [{"n": 1}, {"n": 2}]
