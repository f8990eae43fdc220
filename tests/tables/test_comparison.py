from bench.comparisons.comparison import compare
from bench.tables.comparison import markdown, text
from tests.comparisons.test_comparison import drawn
from tests.helpers.rows import saved_row, saved_run


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
