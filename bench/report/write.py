"""What a report tells in, files out: what each holds is told by how its name ends."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bench.report.content import Content
from bench.report.figure import Section, named
from bench.report.markdown import markdown
from bench.report.page import page
from bench.report.render import picture
from bench.report.rows import as_csv, as_parquet
from bench.report.sections import sections_of
from bench.runs.files import check_folder, write_whole
from bench.runs.plain_text import printable
from sparse_models.errors import InputError

DOCUMENTS: dict[str, Callable[[Content, Sequence[Section]], bytes]] = {
    ".html": lambda content, sections: page(content, sections).encode(),
    ".md": lambda content, sections: markdown(content, sections).encode(),
    ".csv": lambda content, _: as_csv(content),
    ".parquet": lambda content, _: as_parquet(content),
}
PICTURES = (".svg", ".png")
FIGURE = "speed-up"


def check(path: Path) -> None:
    """Raise InputError, one sentence, for a path at which no report can be written."""
    if path.suffix not in (*DOCUMENTS, *PICTURES):
        known = ", ".join((*DOCUMENTS, *PICTURES))
        raise InputError(
            f"expected a name that ends in one of {known}, got {printable(str(path))}; its end says what is written"
        )
    check_folder(path.parent)


def write(content: Content, paths: Sequence[Path], asked: str | None = None) -> str:
    """Write a report at each of the paths and return which figure a picture is; raises InputError, one sentence.

    It is the one that is asked for by name or, where none is, FIGURE or else the first that the run has.
    """
    sections = sections_of(content)
    known = named(sections)
    name = asked or (FIGURE if FIGURE in known else next(iter(known), FIGURE))
    for path in paths:
        if path.suffix in PICTURES:
            if name not in known:
                there = ", ".join(known) or "none"
                raise InputError(f"expected a figure of this run ({there}), got {printable(name)}; name one of them")
            made = picture(known[name].panels, path.suffix)
        else:
            made = DOCUMENTS[path.suffix](content, sections)
        try:
            write_whole(path, made)
        except OSError as error:
            raise InputError(f"expected a file that can be written, got {printable(str(path))}: {error.strerror}") from None
    return name
