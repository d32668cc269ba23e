"""The two rings, and what all tests share: a log in a fresh file, and hypothesis with a fixed seed.

The fast ring needs only what pip installs with the dependency group ``test``: a test that does not find what it needs
is skipped. With ``--all`` the long ring runs too, and nothing may be missing: such a skip is a failure. ``--cluster``,
which adds the tests on a Kafka cluster (``tests/cluster/plugin.py``), is as strict.
"""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import hypothesis
import pytest

import pqlog

# Tests that give no number search longer in the long ring than in the fast one.
for ring, examples in (("fast", 20), ("all", 100), ("cluster", 3)):
    hypothesis.settings.register_profile(ring, derandomize=True, deadline=None, max_examples=examples)

PASSED = []
"""The tests that passed so far."""


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="both rings, and a skip for want of something is a failure")
    parser.addoption("--passed", metavar="FILE", help="write the tests that passed into FILE")
    parser.addoption("--without", metavar="FILE", help="leave out what FILE has, unless the long ring does more of it")


def pytest_xdist_auto_num_workers(config):
    """More than there are processors, since much of a test's time goes into waiting for the disk."""
    return (os.cpu_count() or 1) * 3 // 2


def pytest_configure(config):
    ring = "all" if config.option.all else "cluster" if config.option.cluster else "fast"
    hypothesis.settings.load_profile(ring)


def pytest_collection_modifyitems(config, items):
    other = "fast" if config.option.all else "slow"
    config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker(other)])
    items[:] = [item for item in items if not item.get_closest_marker(other)]
    # A page's Python sessions run once, in the test that also runs its shell commands, which need the files they leave.
    pages = {item.callspec.params["page"] for item in items if item.name.startswith("test_what_a_page_shows_runs[")}
    items[:] = [item for item in items if item.path not in pages]
    if config.option.without:
        passed = set(Path(config.option.without).read_text().splitlines())
        again = [item for item in items if item.nodeid in passed and not does_more(item)]
        config.hook.pytest_deselected(items=again)
        left_out = set(map(id, again))
        items[:] = [item for item in items if id(item) not in left_out]


def does_more(item):
    """Whether a test of both rings searches longer in the long one."""
    code = getattr(getattr(item, "function", None), "__code__", None)
    return bool(item.get_closest_marker("hypothesis")) or (code is not None and "by_ring" in code.co_names)


def pytest_runtest_logreport(report):
    if report.when == "call" and report.passed:
        PASSED.append(report.nodeid)


def pytest_sessionfinish(session):
    """The process that started the others has heard of all tests."""
    if session.config.option.passed and not hasattr(session.config, "workerinput"):
        Path(session.config.option.passed).write_text("\n".join(PASSED))


@functools.cache
def can_mount():
    """Root can, but not in every container: a mount namespace needs the same right."""
    command = ["unshare", "--mount", "--propagation", "unchanged", "true"]
    return bool(shutil.which(command[0])) and not subprocess.run(command, stderr=subprocess.DEVNULL).returncode


def pytest_runtest_setup(item):
    if item.get_closest_marker("mounts") and not can_mount():
        pytest.skip("mounts a disk, which takes root on Linux")
    for marker in item.iter_markers("needs"):
        if not any(map(shutil.which, marker.args)):
            give_up = pytest.fail if nothing_may_be_missing(item.config) else pytest.skip
            give_up(f"needs {marker.args[0]}, which `make test-all` installs")


def nothing_may_be_missing(config):
    return config.option.all or config.option.cluster


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """`importorskip` skips a whole module if a package is missing."""
    report = yield
    if report.skipped and nothing_may_be_missing(collector.config):
        report.outcome = "failed"
        report.longrepr = report.longrepr[2]
    return report


@pytest.fixture
def path(tmp_path):
    """A path that does not exist yet."""
    return tmp_path / "events.db"


@pytest.fixture
def log(path):
    """An open log in a fresh file."""
    with pqlog.open(path) as log:
        yield log
