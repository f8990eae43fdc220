"""A layer or an update rule is one file: dropped in, it is gated, timed, trained, tabulated and tested with no other edit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.in_process import ROOT, SMALL, copied
from tests.helpers.processes import commands

EXAMPLES = [part.partition("```")[0] for part in (ROOT / "docs/layers.md").read_text().split("```python\n")[1:]]
DOCUMENTED_LAYER = next(code for code in EXAMPLES if "@register_layer" in code)
WRONG_LAYER = (
    DOCUMENTED_LAYER.replace("bool_masked", "wrong").replace("BoolMasked", "Wrong")
    + '\n    def index(self, mask):\n        self.register_buffer("kept", ~mask)\n'
)
UPDATE = """
from sparse_models.registry import register_update
from sparse_models.updates._rule import Update, constant
from sparse_models.updates._scores import uniform_random

SMALLEST = register_update(Update("dropped_in", lambda weight, grad, generator: -weight.abs(), uniform_random, constant(0.1)))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with files added to it: the layer of the documentation, a layer that is wrong, an update rule."""
    names = ("sparse_models", "bench", "tests", "conftest.py", "pyproject.toml")
    folder = copied(tmp_path_factory.mktemp("checkout"), *names)
    (folder / "sparse_models/layers/dropped_in.py").write_text(DOCUMENTED_LAYER)
    (folder / "sparse_models/layers/wrong.py").write_text(WRONG_LAYER)
    (folder / "sparse_models/updates/dropped_in.py").write_text(UPDATE)
    return folder


def run_anew(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run pytest in a process of its own: the code is another."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return commands.run(command, cwd=cwd)


def test_files_dropped_in_are_gated_timed_trained_and_tabulated_and_a_wrong_one_takes_no_other_down(checkout: Path) -> None:
    options = ["--op", "forward,step,update,train", "--layer", "bool_masked,wrong", "--update", "set,dropped_in"]
    options += ["--data", "digits", "--protocol", "seed", "--seeds", "1", "--benchmark-json=run.json", "-v"]
    done = run_anew("bench", *SMALL, *options, cwd=checkout)
    assert done.returncode == 1, done.stdout + done.stderr
    own = done.stdout[done.stdout.index("do sparse networks save compute?") :]
    for start in (["forward", "bool_masked"], ["step", "bool_masked"], ["set", "bool_masked"], ["dropped_in", "bool_masked"]):
        assert any(line.split()[:2] == start for line in own.splitlines()), start
    assert "bench_train[digits-seed-dropped_in-bool_masked" in done.stdout
    assert "Wrong: weights held: expected what the definition says, got another; nothing is timed" in done.stdout
    assert "Traceback" not in done.stdout
    names = [record["name"] for record in json.loads((checkout / "run.json").read_text())["benchmarks"]]
    assert sum("bool_masked" in name for name in names) == 1 + 1 + 2 + 2  # forward, step, updates, trainings
    assert sum("dense" in name or "narrow" in name for name in names) >= 2
    assert not any("wrong" in name for name in names)


def test_files_dropped_in_are_tested(checkout: Path) -> None:
    chosen = "test_layer_passes_the_gate and not (odd or 16_bit) and (bool_masked or wrong) or dropped_in"
    tested = run_anew(
        "tests/sparse_models/layers/test_layers.py",
        "tests/sparse_models/updates/test_updates.py",
        "-v",
        "-k",
        chosen,
        cwd=checkout,
    )
    failed = [line.split()[1] for line in tested.stdout.splitlines() if line.startswith("FAILED")]
    assert any("bool_masked" in line and "PASSED" in line for line in tested.stdout.splitlines())
    # The rule keeps the smallest weights, which is the one property of updates that it is made to break.
    broken = "test_the_survivors_are_the_largest_by_sorted_lists[dropped_in]"
    assert f"tests/sparse_models/updates/test_updates.py::{broken}" in failed
    assert all("wrong" in name for name in failed if "dropped_in" not in name)
    assert sum("wrong" in name for name in failed) >= 1
