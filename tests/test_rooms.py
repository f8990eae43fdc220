"""The house is as CONTRIBUTING.md draws it: each room imports from those below it alone, and nothing goes in circles."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter

import pytest

from tests.helpers.in_process import ROOT

MAP = re.findall(r"^\| `bench/(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)  # from the top down
GROUND, ROOF = (
    {"grids": -3, "selection": -2, "shapes": -1, "cases": 0, "": 0},
    ("bench_", "plugin", "__main__"),
)  # in no room: all may import the first
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in ("bench", "sparse_models", "tests")
    for path in (ROOT / folder).rglob("*.py")
}
MOST_LINES, MOST_FILES = 250, 14


def imports(module: str) -> Iterator[str]:
    """Yield what a module imports, wherever in it, but for what only a type checker sees."""
    tree = ast.parse(FILES[module].read_text())
    unseen = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for seen in node.body
        for inner in ast.walk(seen)
    }
    for node in ast.walk(tree):
        if id(node) in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: expected absolute imports"
            assert node.module is not None
            names = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in FILES else node.module for name in names)


def floor(module: str) -> int:
    """Return how high a module of bench/ stands."""
    room = module.split(".")[1] if "." in module else ""
    if room.startswith(ROOF):
        return len(MAP) + 1
    return len(MAP) - MAP.index(room) if room in MAP else GROUND[room]


def test_the_map_shows_every_room() -> None:
    rooms = sorted({path.parent.name for path in (ROOT / "bench").glob("*/*.py")})
    assert sorted(MAP) == rooms


@pytest.mark.parametrize("module", [name for name in FILES if name.startswith("bench.")])
def test_a_room_imports_from_below_it_alone(module: str) -> None:
    own = module.split(".")[1]
    for other in imports(module):
        if other.split(".")[0] == "bench":
            same_room = other.split(".")[1:2] == [own]
            assert same_room or floor(other) < floor(module), f"{module} imports {other}, from above its floor"
        assert not other.startswith("tests"), f"{module} imports {other}"


def test_the_library_knows_nothing_of_how_it_is_measured() -> None:
    for module in FILES:
        if module.startswith("sparse_models"):
            assert {name.split(".")[0] for name in imports(module)}.isdisjoint({"bench", "tests", "pytest"}), module


@pytest.mark.parametrize("package", ["bench", "sparse_models"])
def test_nothing_is_imported_in_a_circle(package: str) -> None:
    graph = {module: [name for name in imports(module) if name in FILES] for module in FILES if module.startswith(package)}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


def test_statistics_are_numbers_alone() -> None:
    known = sys.stdlib_module_names | {"numpy", "scipy"}
    for module in FILES:
        if module.startswith("bench.statistics"):
            others = {name for name in imports(module) if not name.startswith("bench.statistics")}
            assert {name.split(".")[0] for name in others} <= known, module


def test_tests_mirror_the_rooms() -> None:
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert folders - {"helpers", "sparse_models"} <= set(MAP)


def test_files_and_folders_are_small() -> None:
    assert {str(path): lines for path in FILES.values() if (lines := len(path.read_text().splitlines())) > MOST_LINES} == {}
    folders = Counter(path.parent for path in FILES.values())
    assert {str(folder): files for folder, files in folders.items() if files > MOST_FILES} == {}
