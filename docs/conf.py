"""How Sphinx builds these pages: `make docs`."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pqlog.aio
from pqlog.cli.commands import EXAMPLES

HERE = Path(__file__).parent


def commands() -> str:
    """The reference of the command line, by Typer's own generator."""
    module = [sys.executable, "-m", "typer", "pqlog.cli.commands", "utils", "docs", "--name", "pqlog", "--title"]
    text = subprocess.run([*module, "Commands"], capture_output=True, text=True, check=True).stdout

    def examples(section: re.Match[str]) -> str:
        lines = "\n".join(f"$ {example}" for example in EXAMPLES[section["name"]])
        return f"{section['head']}```console\n{lines}\n```\n\n"

    pattern = r"(?P<head>## `pqlog (?P<name>\S+)`.*?)\[bold\]Examples\[/bold\].*?(?=## `pqlog|\Z)"
    return re.sub(pattern, examples, text, flags=re.DOTALL)


(HERE / "reference" / "commands.md").write_text(commands())


PUBLIC = {
    f"{module.__name__}.{name}": thing
    for module in (pqlog, pqlog.aio)
    for name in module.__all__
    if isinstance(thing := getattr(module, name), type)
}


def public_bases(cls: type) -> list[str]:
    """The base classes that have pages of their own, which the pages of their members belong to."""
    return [name for name, base in PUBLIC.items() if base is not cls and base in cls.__mro__]


def members(cls: type) -> dict[str, list[str]]:
    """The methods and properties of a class that get a page each, under their headings, in the order of the source."""
    elsewhere = {name for base in public_bases(cls) for name in dir(PUBLIC[base])}
    found: dict[str, dict[str, None]] = {"Methods": {}, "Properties": {}}
    for base in cls.__mro__:
        for name, member in vars(base).items() if base.__module__.startswith("pqlog") else ():
            if name.startswith("_") or name in elsewhere:
                continue
            if isinstance(member, property):
                found["Properties"][name] = None
            elif inspect.isroutine(member):
                found["Methods"][name] = None
    return {heading: list(names) for heading, names in found.items() if names}


# The stubs of methods that were renamed since the last build would be warnings.
shutil.rmtree(HERE / "reference" / "generated", ignore_errors=True)

project = "pqlog"
author = "the developers of pqlog"
version = release = pqlog.__version__
copyright = "the developers of pqlog, Apache-2.0"

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
# The source folder is the whole repository, so that a link leads to the same file here and where the code is hosted.
root_doc = "docs/index"
include_patterns = ["docs/**", "notebooks/*.ipynb", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/_build", "docs/_templates", "docs/recipes", "docs/pictures"]
templates_path = [str(HERE / "_templates")]
smartquotes = False
default_role = "py:obj"

# pages: MyST, with anchors at headings so that links into a page are checked
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# notebooks: run at each build, which fails if one of them does
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# the reference, from the docstrings
autosummary_generate = True
autosummary_context = {
    "members_of": {name: members(cls) for name, cls in PUBLIC.items()},
    "bases_of": {name: public_bases(cls) for name, cls in PUBLIC.items()},
}
autodoc_typehints = "none"
autodoc_class_signature = "separated"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "pqlog"
html_show_sourcelink = False
html_extra_path = ["_extra"]
# pages without subpages need no section navigation
ALONE = ("index", "script-to-stage", "tour", "concepts", "durability", "benchmarks", "comparison", "glossary")
html_sidebars = {f"docs/{page}": [] for page in ALONE}
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "navbar_align": "left",
    "header_links_before_dropdown": 8,
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# `make links` visits these; the tests have no network
linkcheck_anchors = False


def error_by_its_short_name(app, env, node, contnode):
    """Docstrings name an error as users do, `pqlog.CursorError`; it is described as `pqlog.errors.CursorError`."""
    if node.get("refdomain") != "py":
        return None
    target = "pqlog.errors." + node["reftarget"].removeprefix("pqlog.")
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, contnode)


def setup(app):
    """Sphinx calls this."""
    app.connect("missing-reference", error_by_its_short_name)
