"""The way to the packages around the core: typed, lazy, and clear about what is missing."""

import ast
import re
import sys
from pathlib import Path

import pytest

from pqlog import extras
from tests.cluster.plugin import NEED_KAFKA, ROOT
from tests.processes import run


def test_what_a_type_checker_sees_is_what_is_loaded():
    tree = ast.parse(Path(extras.__file__).read_text())
    (types,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: f"{node.module}.{alias.name}".removeprefix("pqlog.")
        for node in types.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == extras._MODULES


@pytest.mark.parametrize("name", ["frames", "dataframes", "views", "pipe"])
def test_an_attribute_is_the_module_of_that_name(name):
    assert getattr(extras, name) is sys.modules[f"pqlog.{extras._MODULES[name]}"]


def test_nothing_that_make_test_collects_imports_confluent_kafka():
    line = re.compile(
        r"^(?:import|from) (?:confluent_kafka|pqlog\.store\.kafka\.(?!address|callbacks|locking|properties))", re.M
    )
    sources = [path for folder in ("tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    users = {path for path in sources if line.search(path.read_text())}
    assert users
    assert {path for path in users if not any(path.is_relative_to(need) for need in NEED_KAFKA)} == set()


def test_another_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'kitchen'"):
        extras.kitchen


MISSING = """
import sys, pqlog
from pqlog import extras
assert "pqlog.frames" not in sys.modules  # it is loaded when it is first used
sys.modules["pyarrow"] = None
for _ in range(2):
    try:
        extras.frames
        sys.exit("it was loaded")
    except pqlog.MissingExtraError as error:
        assert 'pip install "pqlog[pandas]"' in str(error)
del sys.modules["pyarrow"]
assert extras.frames is sys.modules["pqlog.frames"]

sys.modules["confluent_kafka"] = None
try:
    with extras.needed("kafka"):
        import confluent_kafka
    sys.exit("it was loaded")
except pqlog.MissingExtraError as error:
    assert str(error) == 'this needs confluent-kafka: pip install "pqlog[kafka]"'
"""


def test_a_module_whose_package_is_missing_says_what_to_install_until_it_is_there():
    run(MISSING)
