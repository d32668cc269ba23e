"""The benchmarks on a cluster run at a tiny scale, so that they keep working. The results are not checked here."""

import json

from benchmarks import __main__ as program
from tests.cluster.plugin import alone


def test_they_run_and_save(tmp_path):
    with alone():
        program.main(
            ["cluster", "--rounds", "1", "--scale", "0.002", "--folder", str(tmp_path), "--results", str(tmp_path)]
        )
    assert json.loads((tmp_path / "cluster.json").read_text())["rows"]
