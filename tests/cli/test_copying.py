"""The commands ship and mirror: what they print, how they end."""

import json
import os
import signal
import sys

import pytest

import pqlog
from tests.processes import Process, wait_until


def test_ship_and_mirror_say_what_they_copied(sh):
    sh("pqlog put events.db --topic orders 1 2")
    assert sh("pqlog ship events.db hub.db") == "8 messages of 2 topics shipped from events.db to hub.db\n"
    sh("pqlog put events.db --topic orders 3")
    assert sh("pqlog ship events.db hub.db -t 'ord*'") == "1 message shipped from events.db to hub.db\n"
    assert json.loads(sh("pqlog ship events.db hub.db --json")) == {"messages": 0, "topics": {}, "trimmed": 0}
    assert sh("pqlog mirror hub.db cz.db -t main --key cz") == "1 message mirrored from hub.db to cz.db\n"
    assert sh("pqlog mirror hub.db last.db -t orders --start -2 --json").startswith('{"messages":2,')
    assert sh("pqlog mirror hub.db old.db --since 0s") == "0 messages mirrored from hub.db to old.db\n"
    assert "pqlog-offset" in sh("pqlog get cz.db --metadata")


def test_ship_says_what_is_wrong(sh):
    assert "missing.db does not exist" in sh("pqlog ship missing.db hub.db", code=1)
    assert "no topic 'mian' in this log" in sh("pqlog ship events.db hub.db -t mian", code=1)
    assert "cannot be copied into itself" in sh("pqlog ship events.db events.db", code=1)
    assert "not a valid time" in sh("pqlog mirror events.db hub.db --since yesterdayish", code=1)
    assert "--durability is for a cluster" in sh("pqlog ship events.db hub.db --durability synced", code=1)
    sh("pqlog ship events.db hub.db && pqlog trim events.db -1 --force && pqlog put events.db 1 2 3")
    sh("pqlog trim events.db -1 --force")
    warned = sh("pqlog ship events.db hub.db 2>&1")
    assert "warning: 2 messages of topic 'main' were trimmed before they could be copied" in warned


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_follow_goes_on_until_it_is_ended_and_says_how_many_it_copied(folder, sent, code):
    command = [sys.executable, "-m", "pqlog", "ship", "events.db", "hub.db", "--follow"]
    with Process(command, cwd=folder, stderr=-1, env=dict(os.environ)) as process:
        assert process.stderr.readline() == "pqlog: copying now from events.db to hub.db, 6 messages to go\n"
        assert process.stderr.readline() == "pqlog: up to date: 6 messages copied so far\n"
        with pqlog.open(folder / "events.db") as log, pqlog.open(folder / "hub.db", readonly=True) as hub:
            log.put("more")
            wait_until(lambda: len(hub) == 7)
        process.send_signal(sent)
        # the last batch is there before it is counted
        assert process.stderr.read() in ("pqlog: 7 messages shipped\n", "pqlog: 6 messages shipped\n")
        assert process.wait(30) == code
