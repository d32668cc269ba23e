"""The partition of a key: Kafka's, to the last bit."""

import pytest

from pqlog.partitioning import murmur2, partition_of

# Of the test testMurmur2 of Kafka's Java client (UtilsTest).
KAFKA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("data", KAFKA)
def test_the_hash_is_kafkas(data):
    assert murmur2(data) == KAFKA[data] % 2**32


@pytest.mark.parametrize("data", KAFKA)
def test_a_key_is_in_kafkas_partition_whether_it_was_asked_for_before_or_not(data):
    for partitions in (1, 2, 3, 8, 256):
        expected = (KAFKA[data] & 0x7FFFFFFF) % partitions
        assert [partition_of(data.decode(), partitions) for _ in range(2)] == [expected] * 2


def test_each_length_of_a_rest_counts():
    assert len({murmur2(b"\x81" * length) for length in range(64)}) == 64
