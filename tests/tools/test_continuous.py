"""Two commits of a small repository, measured in turns by the suite that each holds, with drawn figures for clocks."""

import json
import os
import signal
from pathlib import Path

import pytest

from bench.__main__ import main
from bench.engine.interleaving import Interleaving
from bench.engine.two_commits import _Side
from bench.runs.files import read_whole
from bench.runs.reading import parse
from bench.statistics.changes import MIN_PAIRS
from tests.helpers import in_process
from tests.helpers.fake_engine import replace_engine
from tests.helpers.in_process import copied
from tests.helpers.processes.commands import output
from tests.strategies import DEFAULT_LAYERS

CASES = len(DEFAULT_LAYERS) + 2  # and the narrow dense and the unpruned model
SMALL = ["--op", "forward", "--shape", "8x8b4", "--sparsity", "0.5", "--threads", "1", "--processes", "8",
         "--dtype", "float32"]  # fmt: skip


def git(*arguments: str, cwd: Path) -> str:
    own = ["-c", "user.name=test", "-c", "user.email=test", "-c", "commit.gpgsign=false"]
    return output(["git", *own, *arguments], cwd=cwd).strip()


def commit(repository: Path, tag: str, **levels: float) -> None:
    (repository / "levels.json").write_text(json.dumps(levels))
    git("add", "-A", cwd=repository)
    git("commit", "-q", "--allow-empty", "-m", tag, cwd=repository)
    git("tag", tag, cwd=repository)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commits of the suite: as it is, csr slower by a quarter, and one that cannot start."""
    folder = copied(
        tmp_path_factory.mktemp("repository"), "sparse_models", "bench", "pyproject.toml", "tests/helpers/fake_engine.py"
    )
    (folder / "conftest.py").write_text('pytest_plugins = ["bench.plugin", "fake_engine"]\n')
    (folder / ".gitignore").write_text("__pycache__\n.benchmarks\n")
    git("init", "-q", cwd=folder)
    commit(folder, "first", csr=2.0)
    commit(folder, "slower", csr=1.6)
    (folder / "conftest.py").write_text("raise RuntimeError('no such suite')\n")
    commit(folder, "broken")
    git("reset", "-q", "--hard", "slower", cwd=folder)
    return folder


def run(repository: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.chdir(repository)
    return main(["continuous", *arguments, "--", *SMALL])


def test_a_commit_that_is_slower_fails_and_names_the_layer(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    assert run(repository, monkeypatch, "first", "--markdown", str(summary)) == 1
    told = capfd.readouterr().out
    assert "The gate fails: slower, or not to be compared." in told
    assert "bench/bench_layer.py::bench_forward[csr-8x8b4-0.5-cpu-float32-1threads]: slower by 25%, 10% allowed" in told
    assert f"{CASES} cases: 1 slower, {CASES - 1} same" in told
    # Interleaving went base and head to start, then head, base, base, head.
    turns = [line.split(":")[0] for line in told.splitlines() if ": process " in line]
    assert turns == ["head", "base", "base", "head"] * 4
    markdown = summary.read_text()
    assert markdown.startswith("before\n## ❌")
    assert "| `forward[csr-8x8b4-0.5-cpu-float32-1threads]` | slower |" in markdown
    saved = sorted((repository / ".benchmarks").glob("*/*.json"))
    # Pairs are judged by the sign test, however early a case by itself would be clear.
    assert {json.loads(path.read_bytes())["machine"]["run"]["effort"]["least"] for path in saved} == {MIN_PAIRS}
    runs = [parse(path.name, path.read_bytes()) for path in saved]
    assert [one.commit for one in runs] == [git("rev-parse", tag, cwd=repository) for tag in ("first", "slower")]
    assert git("worktree", "list", cwd=repository).count("\n") == 0


def test_identical_commits_pass(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Both are measured in this process: that each commit has one of its own, and its turns, the test above sees."""
    replace_engine(monkeypatch)
    monkeypatch.chdir(tmp_path)
    saved: dict[str, bytes] = {}
    for name in ("base", "head"):
        Path("levels.json").write_text(json.dumps({"csr": 2.0, name: 1.0}))  # the same, in another noise
        assert in_process.run(*SMALL, f"--benchmark-storage={name}", "--benchmark-save=run", cwd=tmp_path).returncode == 0
        saved[name] = read_whole(next(Path(name).glob("*/*_run.json")))
    monkeypatch.setattr("bench.tools.continuous.measure_in_turns", lambda *_: saved)
    assert main(["continuous", "first", "again", "--storage", "both", "--", *SMALL]) == 0
    told = capfd.readouterr().out
    assert f"{CASES} cases: {CASES} same" in told
    assert "The gate passes: nothing is slower by 10%." in told
    assert len(list(Path("both").glob("*/*.json"))) == 2


def test_ctrl_c_reaches_a_commits_run_once_and_it_shares_the_cores_as_this_process_does(
    repository: Path, tmp_path: Path
) -> None:
    side = _Side("base", repository, ["--collect-only"], tmp_path / "log")
    try:
        assert os.getpgid(side.process.pid) == side.process.pid
        assert os.getsid(side.process.pid) == os.getsid(0)
    finally:
        side.end()


def test_a_commits_run_hears_that_it_is_to_end_also_in_the_background(repository: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it runs in the background
    try:
        side = _Side("base", repository, SMALL, tmp_path / "log")
        assert side.next() == "start"
        side.end()
    finally:
        signal.signal(signal.SIGINT, before)
    assert side.process.returncode == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ("broken", "base: expected a saved run of it, got none (exit code"),
        ("nowhere", "expected `git rev-parse --verify` to work for nowhere^{commit}"),
        ("--upload-pack=x", "the following arguments are required"),
    ],
)
def test_a_commit_that_cannot_be_measured_is_told(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], base: str, sentence: str
) -> None:
    with pytest.raises(SystemExit) as exit_of:
        run(repository, monkeypatch, base)
    assert exit_of.value.code == 2
    told = capfd.readouterr().err
    assert sentence in told
    assert "no such suite" in told or base != "broken"
    assert 'Traceback (most recent call last)\n  File "' not in told.replace("  Traceback", "")
    assert git("worktree", "list", cwd=repository).count("\n") == 0


def test_a_run_by_itself_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARSE_MODELS_TURNS", raising=False)
    assert Interleaving().take("anything") == 0
