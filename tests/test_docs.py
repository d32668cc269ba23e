"""What the documents say of the project is so."""

import json
import re
from pathlib import Path

import pqlog

ROOT = Path(pqlog.__file__).parent.parent


def test_notebooks_are_committed_without_outputs():
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path


def test_the_make_targets_of_the_documents_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for name in ("README.md", "CONTRIBUTING.md"):
        for target in re.findall(r"make ([a-z-]+)", (ROOT / name).read_text()):
            assert target in targets, f"{name}: make {target}"


def test_links_between_documents_lead_somewhere():
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_changelog_names_the_version():
    assert f"## {pqlog.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_room_of_the_package_is_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in (ROOT / "pqlog").iterdir():
        if path.name not in ("__init__.py", "__pycache__", "py.typed"):
            assert path.name in text, path.name
