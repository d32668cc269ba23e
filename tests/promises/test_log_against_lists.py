"""A log behaves as plain Python lists do, with a position for each client."""

import pqlog


def test_put_get_ack(tmp_path):
    with pqlog.open(tmp_path / "a.db") as log:
        assert log.put({"a": 1}) == 1
        assert log.put_many([{"a": n} for n in range(2, 5)]) == range(2, 5)
        seen = []
        for value in log.get("c"):
            seen.append(value["a"])
            if len(seen) == 2:
                break
        assert seen == [1, 2]
    with pqlog.open(tmp_path / "a.db") as log:
        assert [v["a"] for v in log.get("c")] == [2, 3, 4]
        assert log.position("c") == 4
        assert log.lag("c") == 0


def test_batches_are_stable(tmp_path):
    with pqlog.open(tmp_path / "a.db") as log:
        log.put_many(range(10))
        for batch in log.batches("etl", size=4):
            assert list(batch) == [0, 1, 2, 3]
            break
        again = [(b.number, list(b), b.attempt) for b in log.batches("etl", size=5)]
    assert again == [(1, [0, 1, 2, 3], 2), (2, [4, 5, 6, 7, 8], 1), (3, [9], 1)]
