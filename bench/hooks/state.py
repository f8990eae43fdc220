"""What the hooks of one pytest session hand each other."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bench.comparisons.comparison import Comparison
from bench.comparisons.gate import Limits
from bench.engine.jobs import Effort
from bench.engine.journal import Journal
from bench.runs.outcome import Outcome
from bench.runs.row import Row
from bench.runs.saved import Run
from bench.selection import Selection


class Compared(NamedTuple):
    """The saved run to compare with, and what came of it once this run is measured."""

    old: Run
    comparison: Comparison | None = None


SELECTION = pytest.StashKey[Selection]()
EFFORT = pytest.StashKey[Effort]()
GATE = pytest.StashKey[Limits | None]()
JOURNAL = pytest.StashKey[Journal]()
INTERRUPTED = pytest.StashKey[bool]()
FOLDER = pytest.StashKey[Path]()  # of this machine's runs, where the journal is kept
MACHINE = pytest.StashKey[dict[str, Any]]()
OUTCOMES = pytest.StashKey[dict[str, Outcome]]()
ROWS = pytest.StashKey[dict[str, Row]]()  # by the name of the case
REPORTED = pytest.StashKey[dict[str, Row]]()  # those that pytest has come to
DESELECTED = pytest.StashKey[set[str]]()
COMPARED = pytest.StashKey[Compared]()
SAVED = pytest.StashKey[list[Path]]()  # where the storage saved this run
NOTES = pytest.StashKey[list[str]]()  # what the user is told at the end: files skipped, a run that was not saved
FAILED = pytest.StashKey[list[str]]()  # why the build fails
