"""Broken pipes, Ctrl-C, kills, terminals, colours, and malicious payloads."""

import fcntl
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
import termios
import time
import uuid

import pytest

import pqlog
from pqlog.cli.output import harmless
from tests.cli.conftest import ENVIRONMENT
from tests.processes import Process, wait_until

pytestmark = pytest.mark.slow


def on_a_terminal(line, folder, until="", width=100, **environment):
    """The output of a command line on a terminal; with `until`, Ctrl-C is pressed once that has appeared."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (30, width))
    process = subprocess.Popen(
        ["bash", "-c", line],
        stdin=side, stdout=side, stderr=side, cwd=folder, start_new_session=True,
        env={**{k: v for k, v in ENVIRONMENT.items() if k != "NO_COLOR"}, "TERM": "xterm-256color", **environment},
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C reaches it
    )  # fmt: skip
    os.close(side)
    seen, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([main], [], [], 0.1)[0]:
            try:
                data = os.read(main, 65_536)
            except OSError:  # the other end of the terminal was closed
                break
            if not data:
                break
            seen += data
            if until and until.encode() in seen:
                os.write(main, b"\x03")
                until = ""
        elif process.poll() is not None:
            break
    os.close(main)
    return seen.decode(errors="surrogateescape"), process.wait(60)


def test_a_reader_that_goes_away(sh, folder):
    sh("seq 1 200000 | pqlog put many.db")
    assert sh("pqlog get many.db | head -2", code=141) == "1\n2\n"
    assert sh("pqlog export many.db - | head -1", code=141) == "1\n"
    assert sh("pqlog export many.db - --format csv | head -1", code=141).startswith('"offset"')
    assert sh("pqlog get many.db --client c | head -2", code=141) == "1\n2\n"
    with pqlog.open(folder / "many.db") as log:
        assert log.client("c").position >= 3
        assert log.client("c").position < 200_000
    assert sh("pqlog get many.db --client batches --batch 1000 | head -2", code=141) == "1\n2\n"
    with pqlog.open(folder / "many.db") as log:
        position = log.client("batches").position
        assert position < 200_000
        assert next(iter(log.batches("batches"))).first == position


def test_what_cannot_be_written_is_not_acknowledged(sh, folder):
    said = sh("pqlog get events.db --client billing > /dev/full", code=1)
    assert "No space left" in said
    with pqlog.open(folder / "events.db") as log:
        assert log.client("billing").position == 3


@pytest.mark.parametrize("how", ["", "--batch 100"])
def test_killed_and_killed_again_a_client_loses_nothing(folder, sh, how):
    sh("seq 1 20000 | pqlog put many.db")
    command = [sys.executable, "-m", "pqlog", "get", "many.db", "--client", "c", *how.split()]
    got = []
    for _ in range(4):
        with (folder / "out").open("w") as out, Process(command, cwd=folder, stdout=out) as process:
            wait_until(lambda: (folder / "out").stat().st_size > 2_000)
            process.kill()
        text = (folder / "out").read_text()
        got += [int(line) for line in text[: text.rfind("\n") + 1].split()]
    got += [int(line) for line in sh(f"pqlog get many.db --client c {how}").split()]
    assert sorted(set(got)) == list(range(1, 20_001))


def test_ctrl_c(folder):
    for line in ("tail -f events.db", "get events.db --client new --follow"):
        text, code = on_a_terminal(f"exec pqlog {line}", folder, until="Graz")
        assert code == 130
        assert "Traceback" not in text
        assert "Graz" in text


def test_ctrl_c_while_lines_are_typed(folder):
    text, code = on_a_terminal("exec pqlog put new.db", folder, until="Ctrl-D to finish")
    assert code == 130
    assert "Traceback" not in text
    with pqlog.open(folder / "new.db") as log:
        assert len(log) == 0


def test_sigterm_in_the_middle_of_a_put(folder):
    with Process([sys.executable, "-m", "pqlog", "put", "new.db"], stdout=None, cwd=folder) as process:
        process.tell("1\n2")
        wait_until((folder / "new.db").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    with pqlog.open(folder / "new.db") as log:
        assert len(log) == 0


EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\x08\x00\x7f\r\u2028"
HEADER = EVIL.replace("\0", "")


def test_payloads_do_a_terminal_no_harm(sh, folder):
    with pqlog.open(folder / "evil.db") as log:
        log.put({"text": EVIL, EVIL: 1}, key=EVIL, headers={HEADER: EVIL})
        log.topic(EVIL).put(EVIL)
        list(log.get(EVIL))
    lines = [
        "get evil.db", "tail evil.db --metadata", "topics evil.db", "clients evil.db", "clients evil.db --json",
        "stats evil.db", "export evil.db - --format csv", "export evil.db -", "get evil.db --topic $'\\x1b[2Jx'",
        "seek evil.db $'\\x1b[2Jx' 0",
    ]  # fmt: skip
    for line in lines:
        text, _ = on_a_terminal(f"pqlog {line}", folder, NO_COLOR="1")
        text = re.sub(r"\r\n|\x1b\[[01]m", "", text)  # except for line ends and bold headings
        assert text
        assert harmless(text) == text, line
    assert json.loads(sh("pqlog get evil.db")) == {"text": EVIL, EVIL: 1}
    message = json.loads(sh("pqlog tail evil.db --metadata"))
    assert (message["key"], message["headers"]) == (EVIL, {HEADER: EVIL})


def test_markup_in_a_name_is_text(sh, folder):
    with pqlog.open(folder / "new.db", "[red]a[/red]") as log:
        list(log.get("[bold]"))
    assert "[red]a[/red]" in sh("pqlog topics new.db")
    assert "[bold]" in sh("pqlog clients new.db")


def test_colours_are_for_terminals_that_want_them(sh, folder):
    assert "\x1b[" in on_a_terminal("pqlog --help", folder)[0]
    assert "\x1b[1m" in on_a_terminal("pqlog topics events.db", folder)[0]
    for colour in ("\x1b[3", "\x1b[9", "\x1b[38"):
        assert colour not in on_a_terminal("pqlog --help; pqlog topics events.db", folder, NO_COLOR="1")[0]
    assert "\x1b" not in sh("pqlog --help; pqlog topics events.db")


def test_progress_is_for_terminals(sh, folder):
    sh("seq 1 100000 > lines")
    text, code = on_a_terminal("pqlog put many.db --from lines && pqlog verify many.db", folder)
    assert code == 0
    assert "put: " in text
    assert "verify: 100%" in text
    done = subprocess.run(
        [sys.executable, "-m", "pqlog", "verify", "many.db"], cwd=folder, capture_output=True, text=True
    )
    assert done.stderr == ""


def test_a_table_fits_a_narrow_terminal(folder):
    text, _ = on_a_terminal("pqlog clients events.db", folder, width=80, COLUMNS="80")
    head, billing = re.sub("\x1b[^m]*m", "", text).splitlines()
    assert len(head) <= 80
    assert head.split() == ["topic", "client", "position", "lag", "batches", "open", "attempt", "seen"]
    assert billing.split()[:4] == ["main", "billing", "3", "4"]


@pytest.mark.needs("tmux")
def test_in_tmux(folder):
    """As a user would: a tail in one window, a put from another, Ctrl-C."""
    server = f"pqlog-{uuid.uuid4().hex[:8]}"

    def tmux(*arguments):
        return subprocess.run(
            ["tmux", "-L", server, *arguments], capture_output=True, text=True, check=True, env=ENVIRONMENT, cwd=folder
        ).stdout

    tmux("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "bash --norc")
    try:
        path = shlex.quote(ENVIRONMENT["PATH"])
        tmux("send-keys", f"export PATH={path}; PS1='$ '; clear; pqlog tail -f events.db -n 1", "Enter")
        wait_until(lambda: '{"city":"Graz","amount":4}' in tmux("capture-pane", "-p"))
        with pqlog.open(folder / "events.db") as log:
            log.put({"city": "Linz"})
        wait_until(lambda: '{"city":"Linz"}' in tmux("capture-pane", "-p"))
        tmux("send-keys", "C-c")
        tmux("send-keys", "echo it ended with $?", "Enter")
        wait_until(lambda: "it ended with 130" in tmux("capture-pane", "-p"))
        assert "Traceback" not in tmux("capture-pane", "-p")
    finally:
        tmux("kill-server")
