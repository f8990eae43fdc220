"""The rows of a report in, a flat table for other programs out: CSV with what is one figure or word, Parquet with all."""

import csv
import io
from typing import Any

from bench.report.content import Content
from bench.runs.row import Row
from sparse_models.errors import InputError


def flat(content: Content) -> list[Row]:
    """Return the rows as they are, each with the name of its case and with its anchor in the page."""
    anchors = {entry.case: entry.anchor for entry in content.entries}
    return [{"case": name, "row": anchors[name], **row} for name, row in content.rows.items()]


def as_csv(content: Content) -> bytes:
    """Return the rows as CSV, without what is a list; no word in it is a formula to a spreadsheet."""
    rows = flat(content)
    fields = list(dict.fromkeys(field for row in rows for field, value in row.items() if not isinstance(value, list)))
    written = io.StringIO()
    writer = csv.DictWriter(written, fields, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: _plain(value) for field, value in row.items()} for row in rows)
    return written.getvalue().encode()


def _plain(value: Any) -> Any:
    is_formula = isinstance(value, str) and value[:1] in ("=", "+", "-", "@") and value != "-"  # which stands for none
    return f"'{value}" if is_formula else value


def as_parquet(content: Content) -> bytes:
    """Return the rows as Parquet; raises InputError, one sentence, where what writes it is not installed."""
    try:
        import pyarrow as pa  # noqa: PLC0415  # an optional dependency, and nobody else's
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise InputError("expected pyarrow, which writes Parquet, got none; pip install -e '.[report]' brings it") from None
    rows = flat(content)
    fields = list(dict.fromkeys(field for row in rows for field in row))
    table = pa.table({field: [row.get(field) for row in rows] for field in fields})
    written = pa.BufferOutputStream()
    parquet.write_table(table, written)
    return bytes(written.getvalue())
