"""Codecs: what goes in comes out, and what cannot be encoded is refused."""

import datetime
import decimal
import math
import uuid

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pqlog
from pqlog import codecs
from pqlog.codecs import codec_for, unencodable


def encode(codec, value):
    try:
        return codec.encode(value)
    except Exception as error:
        raise unencodable(codec, value, error) from error


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
INT64 = st.integers(-(2**63), 2**64 - 1)
MSGPACK = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False) | TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_json_round_trip(value):
    codec = codec_for("json")
    data = codec.encode(value)
    assert b"\n" not in data
    back = codec.decode(data)
    assert back == value
    assert repr(back) == repr(value)  # True is not 1, 1.0 is not 1, -0.0 is not 0.0


@given(MSGPACK)
def test_msgpack_round_trip(value):
    codec = codec_for("msgpack")
    assert repr(codec.decode(codec.encode(value))) == repr(value)


@given(st.lists(JSON, max_size=8))
def test_lines_are_decoded_as_one_by_one(values):
    codec = codec_for("json")
    assert repr(codec.decode_lines(b"\n".join(map(codec.encode, values)))) == repr(values)


@given(st.lists(JSON, min_size=1, max_size=20), st.sampled_from(["json", "msgpack", "pickle"]))
def test_values_survive_the_file(values, codec):
    if codec == "msgpack":
        values = [repr(value) for value in values]
    with pqlog.open(":memory:", codec=codec) as log:
        log.put_many(values)
        for value in values:
            log.put(value, key="k")
        assert repr(list(log.get("c"))) == repr(values * 2)
        assert repr([message.value for message in log]) == repr(values * 2)
        assert repr(list(log.history().values())) == repr(values * 2)


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (np.int64(5), 5),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (pd.Timestamp("2026-11-23T10:00:00Z"), "2026-11-23T10:00:00Z"),
        (datetime.date(2026, 11, 23), "2026-11-23"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        ((1, 2), [1, 2]),
        (2**200, 2**200),
    ],
)
def test_json_takes_what_pipelines_have(value, back):
    codec = codec_for("json")
    assert codec.decode(codec.encode({"v": value})) == {"v": back}


def test_msgpack_keeps_nan_and_refuses_large_integers():
    codec = codec_for("msgpack")
    assert math.isnan(codec.decode(codec.encode(math.nan)))
    with pytest.raises(pqlog.EncodeError, match='codec="json" takes it'):
        encode(codec, 2**64)


@pytest.mark.parametrize("codec", ["json", "msgpack", "bytes", "pickle"])
def test_what_has_no_form_is_refused(codec):
    def value():
        yield

    with pytest.raises(pqlog.EncodeError, match=f"cannot put a generator with the codec '{codec}'"):
        encode(codec_for(codec), value())
    with pytest.raises(pqlog.EncodeError):
        encode(codec_for("json"), "\ud800")


def test_deep_nesting_is_an_error_of_ours():
    value: list = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(pqlog.EncodeError):
        encode(codec_for("json"), value)


def test_a_pickle_topic_must_be_asked_for(path):
    with pqlog.open(path, codec="pickle") as log:
        log.put({1, 2})
    with pqlog.open(path) as log:
        with pytest.raises(pqlog.PickleRefusedError, match='ask for codec="pickle"'):
            next(log.get("c"))
        with pytest.raises(pqlog.CodecMismatchError, match="open it with codec='pickle'"):
            log.put(1)
    with pqlog.open(path, codec="pickle") as log:
        assert list(log.get("c")) == [{1, 2}]


def test_a_topic_keeps_its_codec(path):
    with pqlog.open(path, codec="msgpack") as log:
        log.put(b"a")
    with pytest.raises(pqlog.CodecMismatchError, match="created with the codec 'msgpack', not 'json'"):
        pqlog.open(path, codec="json")
    with pqlog.open(path) as log:
        assert log.codec == "msgpack"
        log.put(b"b")
        assert list(log.get("c")) == [b"a", b"b"]


class Upper:
    name = "upper"

    def encode(self, value):
        return value.upper().encode()

    def decode(self, data):
        if data == b"BAD":
            raise LookupError("no such thing")
        return data.decode().lower()


def test_a_codec_of_ones_own(path):
    with pqlog.open(path, codec=Upper()) as log:
        log.put_many(["a", "bad", "c"])
        with pytest.raises(pqlog.DecodeError, match="LookupError: no such thing") as caught:
            list(log.get("c"))
        assert caught.value.offset == 2
        log.client("c").seek(to=3)
        assert list(log.get("c")) == ["c"]
    with pqlog.open(path) as log, pytest.raises(pqlog.DecodeError, match="pass it as codec="):
        next(iter(log))

    class Bad(Upper):
        name = "json"

    with pytest.raises(pqlog.ArgumentError, match="give yours another name"):
        pqlog.open(path, codec=Bad())


def test_a_type_is_decoded_into(path):
    import msgspec

    class Sale(msgspec.Struct):
        city: str
        amount: float

    with pqlog.open(path) as log:
        log.put(Sale("Brno", 1.5))
        log.put({"city": 3})
    with pqlog.open(path, type=Sale) as log:
        reading = log.get("c")
        assert next(reading) == Sale("Brno", 1.5)
        with pytest.raises(pqlog.DecodeError, match="message 2 of topic 'main' cannot be decoded"):
            next(reading)


@pytest.mark.parametrize(
    ("text", "half"),
    [
        ("cut \\ud83d", "\\ud83d"),
        ("cut \\uDC00 x", "\\uDC00"),
        ("\\ud83d\\ude00 \\ud83d", "\\ud83d"),
        ("\\ud83d\\ude00\\ude01", "\\ude01"),
    ],
)
def test_half_of_a_character_in_json_is_named(text, half):
    data = f'{{"a":"{text}"}}'.encode()
    with pytest.raises(msgspec.DecodeError) as caught:
        codecs.Json().decode(data)
    assert f"its JSON has {half}, which is half of a character" in codecs.why_undecodable(
        codecs.Json(), data, caught.value
    )


@pytest.mark.parametrize("text", ['{"a":"\\ud83d\\ude00"', '{"a":"\\\\ud83d"', '{"a"'])
def test_other_errors_of_json_are_those_of_msgspec(text):
    data = text.encode()
    with pytest.raises(msgspec.DecodeError) as caught:
        codecs.Json().decode(data)
    assert codecs.why_undecodable(codecs.Json(), data, caught.value) == f"DecodeError: {caught.value}"
