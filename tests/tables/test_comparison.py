from bench.comparisons.comparison import compare
from bench.comparisons.gate import SHOWN
from bench.tables.comparison import markdown, text
from tests.comparisons.test_comparison import drawn
from tests.helpers.rows import WIDE, saved_row, saved_run


def test_long_lists_are_cut_and_counted() -> None:
    rows = {f"case {number}": saved_row(threads=number) for number in range(50)}
    lines = list(text(compare(saved_run({"x": saved_row()} | rows), saved_run({"x": saved_row()}))))
    assert sum("gone" in line for line in lines) == 20 + 2
    assert "and 30 more gone" in lines


def test_markdown_has_the_verdict_first_and_a_row_for_what_matters() -> None:
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=0.8))
    lines = list(markdown(comparison, ["csr is slower"], "slower"))
    assert lines[0] == "## ❌ sparse-models: slower"
    assert "- `csr is slower`" in lines
    rows = [line for line in lines if line.startswith("| `")]
    assert len(rows) == 3
    assert {line.count("|") for line in lines if line.startswith("|")} == {9}
    assert next(iter(markdown(comparison, [], "fine"))) == "## ✅ sparse-models: fine"


def test_each_run_has_its_side() -> None:
    old, new = (saved_run({"a": saved_row(speedups=[level] * 8)}, name=f"run {level}") for level in (4.0, 2.0))
    [line] = [line for line in text(compare(old, new), WIDE) if line.strip().startswith("a ")]
    assert line.index("4.00 [4.00 4.00]") < line.index("2.00 [2.00 2.00]") < line.index("0.50 [0.50 0.50]")
    first, second, *_ = (line.partition(":")[2].split(" (")[0].strip() for line in text(compare(old, new), WIDE))
    assert (first, second) == ("run 4.0", "run 2.0")


def test_the_machine_is_told_where_the_runs_name_does_not() -> None:
    inside, outside = (saved_run({"a": saved_row()}, name=name, machine="zen") for name in ("zen/0001_x", "0002_x"))
    first, second, *_ = text(compare(inside, outside))
    assert not first.endswith(" on zen")
    assert second.endswith(" on zen")


def test_denses_time_is_told_with_its_range_from_low_to_high() -> None:
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=1.0))
    summary = comparison.summary._replace(dense=(0.8, 1.0, 1.9), layers=[], costs=[])
    line = "dense took 1.00 times as long as before (median of the cases; 0.80 to 1.90)"
    assert line in list(text(comparison._replace(summary=summary)))


def test_of_many_failures_the_rest_is_counted() -> None:
    lines = list(markdown(compare(drawn(1), drawn(1)), [f"failed {number}" for number in range(SHOWN + 3)], "slower"))
    assert sum(line.startswith("- `failed") for line in lines) == SHOWN
    assert "- and 3 more" in lines


def test_markdown_holds_no_clock_against_other_hardware() -> None:
    lines = "\n".join(markdown(compare(drawn(1, csr=1.0), drawn(2, csr=0.5)._replace(hardware="other")), [], "gate"))
    assert "The hardware is another" in lines
    assert "slower" not in lines
