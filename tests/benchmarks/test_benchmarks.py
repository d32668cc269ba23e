"""Every benchmark runs at a tiny scale, so that it keeps working. The results are not checked here."""

import json

import pytest

for package in ("diskcache", "eventsourcing", "litequeue", "matplotlib", "orjson", "redis"):
    pytest.importorskip(package)

from benchmarks import __main__ as program
from benchmarks import peers, pictures

pytestmark = [pytest.mark.slow, pytest.mark.needs("redis-server")]


@pytest.mark.parametrize("part", ["goals", *(part for part in program.PARTS if part != "cluster")])
def test_every_part_runs_and_saves(tmp_path, part, capsys):
    run(tmp_path, part)
    assert json.loads((tmp_path / f"{part}.json").read_text())["machine"]["cpu"] in capsys.readouterr().out


def run(tmp_path, part):
    scale = "0.0002" if part == "routes" else "0.002"  # where both of its numbers of rows are the same
    program.main([part, "--rounds", "1", "--scale", scale, "--folder", str(tmp_path), "--results", str(tmp_path)])
    saved = json.loads((tmp_path / f"{part}.json").read_text())
    assert saved["rows"]
    assert saved["machine"]["sqlite"]
    if part == "peers":
        assert {row["peer"] for row in saved["rows"]} == {peer.name for peer in peers.PEERS}


def test_the_pictures_are_drawn_from_results(tmp_path):
    for part in ("fsync", "peers", "routes"):
        saved = program.RESULTS / f"{part}.json"
        assert saved.exists(), "python -m benchmarks all --results benchmarks/results"
    pictures.draw(program.RESULTS, tmp_path)
    assert {path.name for path in tmp_path.glob("*.svg")} == {"fsync.svg", "peers.svg", "routes.svg"}
