"""Regimes, skews and shares of zero inputs, as a user asks for them."""

import json
from pathlib import Path

from bench.cases import cases
from tests.helpers.in_process import SMALL, run
from tests.helpers.saved import is_asked_for
from tests.test_cases import DEFAULT


def test_cold_caches_are_a_regime_and_a_cpu_has_no_graphs(tmp_path: Path) -> None:
    done = run(*SMALL, "--op", "forward", "-k", "csr-", "--regime", "warm,cold,graph", "-rs", "--budget", "60",
               f"--benchmark-json={tmp_path / 'run.json'}")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [record["extra_info"] for record in json.loads((tmp_path / "run.json").read_text())["benchmarks"]]
    assert [row["regime"] for row in rows] == ["warm", "cold"]
    assert "(cpu, float32, 1 thread, cold caches)" in done.stdout
    assert "a CPU has no graphs to replay; ask for --regime warm, cold or busy" in done.stdout


def test_skewed_masks_are_cases_of_their_own(tmp_path: Path) -> None:
    arguments = [*SMALL[2:], "--shape", "64x64b4", "--op", "forward", "--layer", "csr", "--skew", "0,0.5"]
    done = run(*arguments, f"--benchmark-json={tmp_path / 'run.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads((tmp_path / "run.json").read_text())["benchmarks"]
    assert sorted(record["extra_info"]["skew"] for record in records) == [0, 0, 0.5, 0.5]
    assert len({record["fullname"] for record in records}) == 4


def test_shares_of_zero_inputs_are_cases_of_the_forward_pass_alone(tmp_path: Path) -> None:
    arguments = [*SMALL[2:], "--shape", "64x64b1", "--op", "forward,backward", "--layer", "input_skipping", "--zeros", "0,0.75"]
    done = run(*arguments, f"--benchmark-json={tmp_path / 'run.json'}")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [record["extra_info"] for record in json.loads((tmp_path / "run.json").read_text())["benchmarks"]]
    asked = [(row["op"], row["zeros"]) for row in rows if row["layer"] == "input_skipping"]
    assert sorted(asked) == [("backward", 0), ("forward", 0), ("forward", 0.75)]
    executed = {row["zeros"]: row["flops_executed"] for row in rows if row["layer"] != "dense" and row["op"] == "forward"}
    assert executed[0.75] == executed[0] / 4
    assert "Forward speed-up over dense by the share of zero inputs, 64x64 batch 1" in done.stdout


def test_a_case_of_an_older_run_is_missed_at_the_shares_that_are_asked_for() -> None:
    asked = DEFAULT._replace(ops=("forward",), layers=("input_skipping",), shapes=("8x12b1",), zeros=(0.5,), threads=(1,))
    [case, *_] = [one for one in cases("forward", asked) if one.zeros]
    assert is_asked_for(asked, case)
    assert not is_asked_for(asked, case._replace(zeros=0.9))
