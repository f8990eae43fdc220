"""What a report tells in, one page out that needs no network and no script: everything is in it, and nothing of it executes.

Its only script and style are its own: a policy in its head names them by their hashes, and a browser runs no other. All texts
are escaped by the templates, those in figures by Vega.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from bench.report.columns import COLUMNS
from bench.report.content import Content
from bench.report.figure import Panel, Section
from bench.report.figures.theme import DARK
from bench.report.glance import glance
from bench.report.machine import again, facts
from bench.report.render import svg
from bench.tables.text import MARKS

TEMPLATES = FileSystemLoader(Path(__file__).parent / "templates")
ESCAPED = Environment(loader=TEMPLATES, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
PLAIN = Environment(loader=TEMPLATES, autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # style sheet and script, which hold no text of others


def page(content: Content, sections: Sequence[Section]) -> str:
    """Return the page."""
    style, script = (PLAIN.get_template(name).render(colours=DARK) for name in ("page.css", "page.js"))
    return ESCAPED.get_template("page.html").render(
        content=content,
        sections=sections,
        machine=machine_of(content),
        glance=glance(content),
        facts=facts(content),
        again=again(content),
        columns=COLUMNS,
        verdicts=tuple(MARKS),
        drawn=_drawn,
        zip=zip,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'; form-action 'none'",
        style=Markup(style),  # noqa: S704  # our own files
        script=Markup(script),  # noqa: S704  # our own files
    )


def machine_of(content: Content) -> str:
    """Return the machine in a word: its processor, its cores and its GPU."""
    return content.run.hardware.rpartition("-")[0] or content.run.hardware


def _drawn(panel: Panel, label: str) -> Markup:
    return Markup(svg(panel, label))  # noqa: S704  # whose texts Vega has escaped


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
