"""Does everything with files that anybody may have made, in a limited process; prints a line of JSON for each step."""

import json
import resource
import sys
import warnings
from pathlib import Path

import pqlog

MEMORY, SECONDS = 4 << 30, 60


def dead_letters(log):
    """Process batch after batch; those that fail twice become dead letters, so the loop ends."""
    for _ in range(9):
        try:
            return [list(batch) for batch in log.batches("b", size=10**6, attempts=1)]
        except pqlog.DecodeError as error:
            last = error
    raise last


STEPS = {
    "topics": lambda log, path: log.topics(),
    "len": lambda log, path: len(log),
    "repr": lambda log, path: repr(log),
    "clients": lambda log, path: [repr(client) for client in log.clients()],
    "claims": lambda log, path: log.client("b").claims(),
    "iterate": lambda log, path: sum(1 for _ in log.history()),
    "one": lambda log, path: log[-1],
    "values": lambda log, path: sum(1 for _ in log.history().values()),
    "pandas": lambda log, path: log.to_pandas(),
    "no metadata": lambda log, path: log.history().to_pandas(metadata=False),
    "backends": lambda log, path: log.history().to_pandas(dtype_backend="pyarrow"),
    "columns": lambda log, path: log.history().to_pandas(["a"]),
    "flat": lambda log, path: log.history().to_pandas(flatten=True),
    "polars": lambda log, path: log.history().to_polars(),
    "stream": lambda log, path: sum(batch.num_rows for batch in log.history().to_batches()),
    "html": lambda log, path: log._repr_html_() + log.history()._repr_html_(),
    "key": lambda log, path: [message.value for message in log.history(key="x")],
    "since": lambda log, path: len(log.history(since="1h")),
    "latest": lambda log, path: log.history().latest().to_pandas(),
    "verify": lambda log, path: log.verify(),
    "parquet": lambda log, path: log.history().to_parquet(f"{path}.parquet"),
    "get": lambda log, path: next(log.get("g"), None),
    "batch": lambda log, path: [list(batch) for batch in log.batches("b", max_bytes=10)],
    "dead letters": lambda log, path: dead_letters(log),
    "seek": lambda log, path: log.client("g").seek(to="end"),
    "cursor": lambda log, path: log.cursor("c"),
    "put": lambda log, path: log.put({"a": 1}),
    "put with an id": lambda log, path: log.put({"a": 1}, id="i", headers={"h": "x"}),
    "put_many with ids": lambda log, path: log.put_many([{"a": "i"}, {"a": "j"}], ids="a"),
    "another topic": lambda log, path: log.topic("another").put(1),
    "backup": lambda log, path: log.backup(f"{path}.backup-{id(log)}"),
    "trim": lambda log, path: log.trim(before=2, force=True),
    "compact": lambda log, path: log.compact(),
}


def main(paths):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    warnings.simplefilter("ignore")
    for path in paths:
        for readonly in (True, False):
            how = "r" if readonly else "w"
            with told(path, f"open {how}") as open_:
                open_.log = pqlog.open(path, readonly=readonly)
            if open_.log is None:
                continue
            for step, do in STEPS.items():
                with told(path, f"{step} {how}"):
                    do(open_.log, path)
            with told(path, f"close {how}"):
                open_.log.close()
        with told(path, "salvage"):
            pqlog.salvage(path, f"{path}.salvaged")


class told:
    """Prints what happened: nothing, an error of pqlog, or another error."""

    def __init__(self, path, step):
        self.log, self.said = None, {"file": Path(path).name, "step": step}
        print(json.dumps(self.said), end="\r", flush=True)  # the last words of a process that dies

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is not None:
            self.said |= {"error": kind.__name__, "ours": isinstance(error, pqlog.Error), "text": str(error)[:300]}
        print(json.dumps(self.said), flush=True)
        return True


if __name__ == "__main__":
    main(sys.argv[1:])
