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


def write(content: Content, paths: Sequence[Path], figure: str = FIGURE) -> None:
    """Write a report at each of the paths, a picture being that of one figure; raises InputError, one sentence."""
    sections = sections_of(content)
    for path in paths:
        if path.suffix in PICTURES:
            known = named(sections)
            if figure not in known:
                there = ", ".join(known) or "none"
                raise InputError(f"expected a figure of this run ({there}), got {printable(figure)}; name one of them")
            made = picture(known[figure].panels, path.suffix)
        else:
            made = DOCUMENTS[path.suffix](content, sections)
        try:
            write_whole(path, made)
        except OSError as error:
            raise InputError(f"expected a file that can be written, got {printable(str(path))}: {error.strerror}") from None
