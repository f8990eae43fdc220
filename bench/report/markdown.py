"""What a report tells in, the same as Markdown for a pull request out: texts of others are shown and never obeyed."""

import html
import re
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

from bench.report.columns import COLUMNS
from bench.report.content import Content
from bench.report.figure import Section
from bench.report.glance import glance
from bench.report.machine import again
from bench.report.page import TEMPLATES, machine_of


def text(value: str) -> str:
    """Return text as Markdown shows it: no markup, no link, no cell's end and no other line."""
    plain = " ".join(html.escape(str(value), quote=False).split())
    return re.sub(r"([\\`*|]|\](?=\())", r"\\\1", plain)


def code(value: str) -> str:
    """Return text in a code span, fenced by more backticks than it has in a row."""
    plain = " ".join(str(value).split())
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"{fence}{plain}{fence}"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; nothing for one without rows."""
    if not rows:
        return ""
    lines = [headers, ["---"] * len(headers), *([text(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


PLAIN = Environment(loader=TEMPLATES, autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # Markdown escapes otherwise
PLAIN.filters.update(text=text, code=code)


def markdown(content: Content, sections: Sequence[Section]) -> str:
    """Return the report as Markdown; its figures are their data and what they show in words."""
    rendered = PLAIN.get_template("page.md").render(
        content=content,
        sections=sections,
        machine=machine_of(content),
        glance=glance(content),
        again=again(content),
        headers=[column.header for column in COLUMNS],
        cells=[[column.text(entry) for column in COLUMNS] for entry in content.entries],
        table=table,
    )
    return re.sub(r"\n{3,}", "\n\n", rendered).strip() + "\n"
