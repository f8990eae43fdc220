"""Saving, comparing and gating as a user meets them, with drawn figures in the place of measured ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.session import BenchmarkSession
from pytest_benchmark.storage.file import FileStorage

from bench.runs.reading import parse
from tests.helpers import in_process
from tests.helpers.fake_engine import replace_engine
from tests.helpers.in_process import Done
from tests.strategies import DEFAULT_LAYERS

CASES = len(DEFAULT_LAYERS) + 2  # and the narrow dense and the unpruned model
SMALL = [*in_process.SMALL, "--processes", "8", "--op", "forward"]


class Suite:
    """A working directory with a storage of its own, in which pytest is run with levels in the place of measurements."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.storage = folder, folder / "runs"

    def run(self, *arguments: str, **levels: float) -> Done:
        """Run pytest with levels in the place of measurements."""
        (self.folder / "levels.json").write_text(json.dumps(levels))
        with pytest.MonkeyPatch.context() as patch:
            replace_engine(patch)
            # Figures are drawn here, and nothing runs that could leave garbage, which takes half of such a run to collect.
            swift = ["-p", "no:unraisableexception"]
            return in_process.run(*SMALL, *swift, f"--benchmark-storage={self.storage}", *arguments, cwd=self.folder)

    @property
    def saved(self) -> list[Path]:
        return sorted(self.storage.glob("*/*.json"))

    def change(self, path: Path, name: str, **fields: Any) -> None:
        """Change a saved file: fields of the machine's processor in a copy of another name."""
        content = json.loads(path.read_text())
        content["machine"]["cpu"] |= fields
        path.with_name(name).write_text(json.dumps(content))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """A storage with one saved run, in which csr is twice as fast as dense."""
    made = Suite(tmp_path_factory.mktemp("suite"))
    done = made.run("--benchmark-save=first", csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_a_run_is_saved_in_a_folder_named_after_the_machine(suite: Suite) -> None:
    first = suite.saved[0]
    run = parse("run", first.read_bytes())
    assert first.parent.name == run.machine
    assert first.name == "0001_first.json"
    assert {case.row.layer for case in run.cases.values()} >= {"csr", "dense", "tiled"}
    assert not list(first.parent.glob(".run-*"))  # the journal of a run that is saved is gone


def test_the_same_again_is_the_same_and_passes_the_gate(suite: Suite) -> None:
    done = suite.run("--benchmark-compare", "--fail-slower", "10%", csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout[done.stdout.index("what changed?") :]
    assert "0001_first.json" in told
    assert f"cases: {CASES} same" in told
    assert "the build fails" not in told
    assert "(NOW)" in done.stdout  # pytest-benchmark's own comparison stands
    assert "(0001_first)" in done.stdout


def test_a_slowdown_is_named_and_fails_the_build_without_a_traceback(suite: Suite) -> None:
    done = suite.run("--benchmark-compare=0001", "--fail-slower=10%", csr=1.4)
    assert done.returncode == 1, done.stdout + done.stderr
    end = done.stdout[done.stdout.index("the build fails") :]
    assert "bench/bench_layer.py::bench_forward[csr-8x8b4-0.5-cpu-float32-1threads]: slower by 43%, 10% allowed" in end
    assert end.count("slower by") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "csr: 1 of 1 cases slower, by 43% (median)" in done.stdout


def test_without_the_gate_a_slowdown_is_told_and_fails_nothing(suite: Suite) -> None:
    done = suite.run("--benchmark-compare", "--layer", "csr", csr=1.6)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"1 slower, 1 same; {CASES - 2} of the run before were not asked for" in done.stdout


def test_a_layer_that_is_gone_fails_and_one_that_was_not_asked_for_does_not(suite: Suite) -> None:
    content = suite.saved[0].read_text()
    path = suite.storage / "with_lost.json"
    path.write_text(content.replace("csr_linear", "lost_layer"))
    for arguments, code in (([], 1), (["--layer", "csr,masked"], 0), (["-k", "not lost"], 0), (["-k", "csr or lost"], 1)):
        done = suite.run(f"--benchmark-compare={path}", "--fail-slower", "10%", *arguments, csr=2.0)
        assert done.returncode == code, done.stdout + done.stderr
        assert ("lost_layer-8x8b4-0.5-cpu-float32-1threads]: gone" in done.stdout) == bool(code)
    path.unlink()


def test_a_run_of_other_hardware_is_shown_beside_and_fails_the_gate(suite: Suite) -> None:
    suite.change(suite.saved[0], "other.json", physical_cores=77)
    other = suite.saved[0].with_name("other.json")
    done = suite.run(f"--benchmark-compare={other}", "--fail-slower", "10%", csr=1.0)
    other.unlink()
    assert done.returncode == 1, done.stdout + done.stderr
    assert "The hardware is another" in done.stdout
    assert f"{CASES} of {CASES} cases are in more than one" in done.stdout
    assert "other hardware: " in done.stdout[done.stdout.index("the build fails") :]


def test_damaged_files_are_named_in_a_line_and_the_newest_that_is_whole_is_taken(suite: Suite) -> None:
    folder = suite.saved[0].parent
    (folder / "0002_cut.json").write_bytes(suite.saved[0].read_bytes()[:1000])
    (folder / "0003_deep.json").write_text("[" * 100_000)
    done = suite.run("--benchmark-compare", "--fail-slower", "10%", csr=2.0)
    for name in ("0002_cut.json", "0003_deep.json"):
        (folder / name).unlink()
        assert sum(f"skipped {folder.name}/{name}: " in line for line in done.stdout.splitlines()) == 1
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cases: {CASES} same" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--fail-slower", "10%"], "--fail-slower: expected --benchmark-compare beside it, got none"),
        (["--fail-slower", "ten", "--benchmark-compare"], "--fail-slower: expected a percentage above 0, got 'ten'"),
        (["--fail-slower", "10%", "--benchmark-compare=0099"], "--fail-slower: expected a saved run of this suite"),
        (["--benchmark-compare=a/b/c"], "--benchmark-compare: 'a/b/c' isn't an existing file"),
    ],
)
def test_bad_input_gets_one_sentence(suite: Suite, arguments: list[str], sentence: str) -> None:
    done = suite.run(*arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout + done.stderr
    assert f"ERROR: {sentence}" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_run_that_is_interrupted_or_not_saved_keeps_its_journal_and_says_so(suite: Suite) -> None:
    folder = suite.saved[0].parent
    done = suite.run("--benchmark-save=broken", csr=2.0, interrupted=1)
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout + done.stderr
    assert "what was measured is kept: --resume goes on with it" in done.stdout
    [journal] = folder.glob(".run-*.jsonl")
    done = suite.run("--resume", "--benchmark-json=/dev/full", csr=2.0)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the run was not saved as /dev/full" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert journal.exists()
    done = suite.run("--resume", csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "going on with a broken run" in done.stdout
    assert not journal.exists()
    for path in suite.saved[1:]:
        path.unlink()


def test_a_break_even_is_saved_for_every_curve_of_two_points(suite: Suite) -> None:
    path = suite.folder / "run.json"
    done = suite.run("--sparsity", "0.5,0.9", "--layer", "csr", f"--benchmark-json={path}", csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    [record] = json.loads(path.read_text())["break_even"]
    assert (record["op"], record["layer"], record["measured_from"], record["measured_to"]) == ("forward", "csr", 0.5, 0.9)


def test_group_by_any_parameter(suite: Suite) -> None:
    grouped = "--benchmark-group-by=param:layer,param:data"
    done = suite.run("--op", "forward,update", "--layer", "csr,masked", grouped, csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "benchmark 'layer=csr data=-'" in done.stdout


def test_with_nothing_to_go_on_with_a_run_is_measured_from_the_start(suite: Suite) -> None:
    done = suite.run("--resume", csr=2.0)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line.startswith("--resume: ")]
    assert len(told) == 1
    assert told[0].endswith("got none; measuring from the start")
    assert "do sparse networks save compute?" in done.stdout


def test_pytest_benchmark_has_what_is_taken_of_it(tmp_path: Path) -> None:
    for name in ("handle_loading", "save_json", "handle_saving", "prepare_benchmarks"):
        assert callable(getattr(BenchmarkSession, name)), name
    storage = FileStorage(str(tmp_path), logger=None, default_machine_id="machine")
    assert storage.path == tmp_path.resolve()
    for name in ("save", "load", "query"):
        assert callable(getattr(storage, name)), name
