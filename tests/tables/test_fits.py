"""Every table, title and note fits the screen, and no figure is lost by splitting."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.findings.answer import answer_of
from bench.findings.short_answer import short_answer
from bench.runs.row import Row
from bench.tables import short_answer as short
from bench.tables.answer import lines
from bench.tables.grid import Grid, print_table
from bench.tables.text import WIDTH, Screen, coloured, new_console, text_of
from tests.helpers.rows import WIDE, learnt, row

EIGHT = {"process_numbers": list(range(8)), "process_seconds": [1e-3] * 8, "process_dense_seconds": [2e-3] * 8}
EIGHT |= {"process_speedups": [2.0] * 8}
LAYERS = ("csr", "csr_linear", "masked", "tiled", "a_layer_with_quite_a_long_name")
PARTS = ("training_forward", "input_gradient", "weight_gradient", "optimizer")
UNACCOUNTED = {f"unaccounted_fraction{end}": 0.1 for end in ("", "_low", "_high")}


def rows_of_every_kind() -> list[Row]:
    """Rows that fill every table there is, with figures as long as they come."""
    made: list[Row] = []
    for shape, batch in (("512x2048", 1), ("100x256x256x10", 4096)):
        at = {"shape": shape, "batch": batch, **EIGHT, "peak_bytes": 2**20, "other_layout_cost": 1.25, "joules": 0.5}
        at |= {"dense_joules": 2.0, "bytes_moved": 4e6, "bound_gb_per_s": 8.0, "dense_layout": "feature-major"}
        at |= {"speedup": 12.3, "speedup_low": 11.1, "speedup_high": 14.4, "verdict": "faster"}
        bounded = {"tile_bytes": 2**17, "bound_gflops": 200.0, "bound_fraction": 0.8}
        for op in ("forward", "backward", "step", "training_step"):
            made += [
                row(**at, op=op, model="dense", layer="dense", sparsity=0.0, dtype=dtype) for dtype in ("float32", "bfloat16")
            ]
            made.append(row(**at, op=op, model="unpruned", layer="block16", sparsity=0.0))
            for sparsity in (0.5, 0.8, 0.9, 0.95, 0.99):
                made += [row(**at, **bounded, **UNACCOUNTED, op=op, layer=layer, sparsity=sparsity) for layer in LAYERS]
                made.append(row(**at, op=op, model="narrow", layer="dense", sparsity=sparsity))
        for layer in LAYERS:
            made += [row(**at, op=op, layer=layer, sparsity=0.8) for op in (*PARTS, "beside")]
            made += [row(**at, op="update", update=rule, layer=layer, sparsity=0.8) for rule in ("rigl", "set")]
    common = {"op": "train", "data": "digits", "protocol": "tuned", **EIGHT}
    arms = (("dense", "dense", 0.0), *(("sparse", layer, 0.8) for layer in LAYERS), ("narrow", "dense", 0.8))
    for model, layer, sparsity in arms:
        at = common | {"model": model, "layer": layer, "sparsity": sparsity}
        made += learnt([([0.8, 0.9], [0.012345 * number, 0.2]) for number in range(1, 9)], **at)
        made += learnt([([0.1, 0.2], [0.012345, 0.2])] * 3, **at | {"update": "set"} if model == "sparse" else at)
    return made


def test_all_of_an_answer_fits_and_every_table_is_there() -> None:
    told = list(lines(answer_of(rows_of_every_kind()), Screen()))
    assert max(map(len, told)) <= WIDTH
    titles = ["Speed-up over", "Against dense", "Realised", "Roofline", "GB/s moved", "Memory", "Energy", "Where a step's"]
    titles += ["Cost of one mask", "In turns with", "Trained on", "Patterns at equal", "Patterns trained", "Time to dense's"]
    for title in titles:
        assert any(line.startswith(title) for line in told), title


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_no_figure_of_an_answer_is_lost_or_broken_by_the_width(width: int) -> None:
    figures = re.compile(
        r">?\d[\d.,]* [\[(][\d.]+ (?:[\d.]+|never)[\])]|\d+(?: = |/\d+ )\d+%|\d\.\d{3} \(\d\.\d{3} \d\.\d{3}\)"
    )

    def found(screen: Screen) -> Counter[str]:
        return Counter(figures.findall("\n".join(lines(answer_of(rows_of_every_kind()), screen))))

    assert found(Screen(width)) == found(WIDE)
    assert found(WIDE).total() > 300


@given(
    st.lists(st.lists(st.integers(0, 10**12), min_size=7, max_size=7), min_size=1, max_size=5),
    st.integers(60, 140),
    st.integers(1, 4),
)
def test_splitting_keeps_every_cell_beside_its_key(cells: list[list[int]], width: int, keys: int) -> None:
    grid = Grid([f"header{number}" for number in range(7 + keys)], keys=keys)
    for number, line in enumerate(cells):
        grid.add_row(*(f"key{number}of{key}" for key in range(keys)), *(f"{value}u" for value in line))
    console = new_console(Screen(width))
    print_table(console, "", grid)
    told = list(text_of(console))
    assert all(len(line) <= width for line in told)
    assert Counter(re.findall(r"\d+(?=u)", "\n".join(told))) == Counter(str(value) for line in cells for value in line)


def test_colours_are_there_on_a_terminal_alone() -> None:
    def printed(screen: Screen) -> str:
        grid = Grid(["layer", "0.9"])
        grid.add_row("csr", coloured("2.00 +", "faster"))
        console = new_console(screen)
        print_table(console, "", grid)
        return "\n".join(text_of(console))

    assert "\x1b[32m2.00 +\x1b[0m" in printed(Screen(is_coloured=True))
    assert "\x1b" not in printed(Screen())
    assert re.sub(r"\x1b\[\d*m", "", printed(Screen(is_coloured=True))).split() == printed(Screen()).split()


def test_the_short_answer_fits_its_lines_whatever_was_measured() -> None:
    made = rows_of_every_kind()
    undecided = [one | {"verdict": "undecided"} for one in made]
    for some in (made, undecided, made[:1], [one for one in made if one["op"] == "train"], made[::7]):
        told = list(short.lines(short_answer(some, "zen5-2cores"), Screen()))
        assert 1 <= len(told) <= short.MOST
        assert max(map(len, told)) <= WIDTH
