"""How Sphinx builds the site: ``make docs``, or ``sphinx-build -n -W --keep-going docs docs/_build``."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

from docutils import nodes

import pytest_mlpatterns

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

project = "pytest-mlpatterns"
author = "The pytest-mlpatterns developers"
project_copyright = author
release = version = pytest_mlpatterns.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
suppress_warnings = ["config.cache"]  # nothing is configured that cannot be pickled but what the theme brings
nitpicky = True
highlight_language = "text"

html_theme = "furo"
html_title = f"pytest-mlpatterns {release}"
html_static_path = ["_static"]
html_favicon = "_static/icon.svg"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

python_use_unqualified_type_names = True
nitpick_ignore_regex = [  # no network is asked when this is built, so other projects are not linked
    ("py:.*", r"(abc|collections\.abc|enum|httpx|numpy|np|pathlib|pytest)\..*"),
    ("py:class", r"NDArray|Path|np\.int64"),
    ("py:class", r"(.*\.)?(AdaptiveWait|GeneratorMetrics|LaunchValue|Store)"),  # internal; the page describes them
    ("py:class", r"(.*\.)?(Behaviour|Capacity|FittedLaw|Launch|OverloadStep|ScaleOut|Schedule|Target)"),  # likewise
]


def public_name(app: Sphinx, env: BuildEnvironment, node: Any, contnode: nodes.Element) -> nodes.Element | None:
    """Lead a reference to a class by the module that defines it to the place where its public name is documented."""
    name = str(node.get("reftarget", "")).rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in pytest_mlpatterns.__all__:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, node["reftype"], f"pytest_mlpatterns.{name}", node, contnode
    )


def keep_colon(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from reading the first words of a property's docstring as its type, as in ``int: a number``."""
    if what == "property" and lines:
        lines[0] = lines[0].replace(": ", " – ", 1)


def keep_first_paragraph(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Leave out how a class is made that only the package makes."""
    if what == "class" and name.rpartition(".")[2] in ("Deployment", "Metrics", "Perf") and "" in lines:
        del lines[lines.index("") :]


def describe(
    app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Tell search engines what a page is about: its first paragraph."""
    paragraph = next(iter(doctree.findall(nodes.paragraph)), None) if doctree is not None else None
    if paragraph is not None:
        words = escape(" ".join(paragraph.astext().split()))
        context["metatags"] = f'{context.get("metatags", "")}<meta name="description" content="{words}">'


def setup(app: Sphinx) -> None:
    """Connect what this file defines."""
    app.connect("autodoc-process-docstring", keep_colon, priority=400)  # before napoleon
    app.connect("autodoc-process-docstring", keep_first_paragraph, priority=400)
    app.connect("missing-reference", public_name)
    app.connect("html-page-context", describe)
