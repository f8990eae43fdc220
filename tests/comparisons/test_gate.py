import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.comparisons.comparison import compare
from bench.comparisons.gate import Limits, failures, read_limits
from sparse_models.errors import InputError
from tests.comparisons.test_comparison import drawn
from tests.helpers.rows import saved_row, saved_run

CSR = "bench/bench_layer.py::bench_forward[csr-0.5]"


def test_a_slower_case_fails_and_is_named_with_both_figures() -> None:
    failed = failures(compare(drawn(1, csr=1.0), drawn(2, csr=0.8)), Limits(0.1))
    assert len(failed) == 3
    assert all("bench_forward[csr-" in line and ": slower by 2" in line and "10% allowed" in line for line in failed)


@given(st.integers(0, 1000))
def test_identical_runs_pass(seed: int) -> None:
    run = drawn(seed, csr=1.0)
    assert failures(compare(run, run), Limits(0.001)) == []


def test_a_slowdown_below_its_limit_passes_however_sure() -> None:
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=0.8))
    assert comparison.having("slower")
    assert failures(comparison, Limits(0.4)) == []


def test_the_last_pattern_that_matches_holds() -> None:
    limits = Limits(0.1, {"*csr*": 0.5, "*forward[csr-0.5]*": None, "*masked": 0.2})
    assert limits.of(CSR) is None
    assert limits.of(CSR.replace("0.5", "0.8")) == 0.5
    assert limits.of("masked") == 0.2
    assert limits.of("masked[1]") == 0.1
    comparison = compare(drawn(1, csr=1.0), drawn(2, csr=0.8))
    assert failures(comparison, limits) == []
    assert len(failures(comparison, Limits(0.1, {CSR: None}))) == 2


def test_a_case_that_is_gone_fails_unless_it_is_not_watched() -> None:
    comparison = compare(saved_run({"a": saved_row(), "b": saved_row(layer="tiled")}), saved_run({"a": saved_row()}))
    assert failures(comparison, Limits(0.1)) == ["b: gone"]
    assert failures(comparison, Limits(0.1, {"b": None})) == []


def test_a_changed_definition_fails() -> None:
    runs = [saved_run({"a": saved_row(nnz=nnz), "b": saved_row(layer="tiled")}) for nnz in (3, 4)]
    assert failures(compare(*runs), Limits(0.1)) == ["a: changed definition (nnz was 3 and is 4)"]


def test_nothing_in_common_fails() -> None:
    [gone, nothing] = failures(compare(saved_run({"a": saved_row()}), saved_run({"b": saved_row(layer="tiled")})), Limits(0.1))
    assert gone == "a: gone"
    assert nothing.startswith("no case that is to be watched is in both runs")
    [nothing] = failures(compare(saved_run({"a": saved_row()}), saved_run({"a": saved_row()})), Limits(0.1, {"*": None}))
    assert nothing.startswith("no case that is to be watched is in both runs")


def test_too_few_processes_to_decide_anything_fail() -> None:
    draw = random.Random(0)
    runs = [saved_run({"a": saved_row(speedups=[draw.uniform(1, 2) for _ in range(4)])}) for _ in range(2)]
    [few] = failures(compare(*runs), Limits(0.1))
    assert few.startswith("no case has the 5 processes in both runs that a verdict takes (8 in turns); raise --budget")


def test_other_hardware_fails() -> None:
    run = drawn(1)
    [other] = failures(compare(run, run._replace(hardware="another")), Limits(0.1))
    assert other.startswith("other hardware: run 1 ")
    assert other.endswith("a run of this machine is needed")


def test_limits_come_from_the_command_line_and_from_pyproject(tmp_path: Path) -> None:
    assert read_limits("10%", tmp_path) == Limits(0.1)
    (tmp_path / "pyproject.toml").write_text('[tool.sparse-models.fail-slower]\n"*csr*" = "25%"\n"*train*" = "off"\n')
    assert read_limits("7.5 %", tmp_path) == Limits(0.075, {"*csr*": 0.25, "*train*": None})


@pytest.mark.parametrize("asked", ["10", "0%", "-5%", "ten", "", "1e3%", "nan%"])
def test_what_is_no_percentage_is_refused(asked: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a percentage above 0, got .*; for example 10%"):
        read_limits(asked, tmp_path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[tool.sparse-models]\nfail-slower = 3", "expected lines such as"),
        ('[tool.sparse-models.fail-slower]\n"*" = 10', "expected lines such as"),
        (
            '[tool.sparse-models.fail-slower]\n"*" = "many"',
            "expected a percentage above 0, got 'many'; for example 10%, or off",
        ),
        ("[tool", "expected a pyproject.toml that can be read"),
    ],
)
def test_a_bad_pyproject_is_refused_in_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(content)
    with pytest.raises(InputError) as error:
        read_limits("10%", tmp_path)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
