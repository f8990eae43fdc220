"""What the pages say holds: their commands and examples run, and every option, path and link in them is there."""

import argparse
import itertools
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.__main__ import TOOLS, main
from bench.comparisons.gate import read_limits
from bench.hooks.options import add_options
from bench.shapes import Shape
from sparse_models.data import DATA
from sparse_models.layers import LAYERS
from tests.helpers.in_process import ROOT, run
from tests.helpers.processes.commands import output
from tests.helpers.saved import row, saved

PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MOST_LINES = {"README.md": 150, "CONTRIBUTING.md": 80}
PYTEST, TOOL = (".venv/bin/pytest",), (".venv/bin/python", "-m", "bench")
# Programs that reach out of the checkout, or start it all over again: that they are there is all that is looked at.
OUTSIDE = {"git": "what it fetches from is not here", ".ci/run": "this test is a part of it"}
# Tools that measure for minutes, of which tests of their own look at every part: here their arguments are parsed.
MEASURING = ("continuous", "calibrate", "tune", "advise", "gpu")
SWIFT = ["-q", "-p", "no:unraisableexception"]  # which collects garbage for longer than all else of a small run takes
RUNS = 12  # in the storage that commands find


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Yield the pages and texts of all fenced blocks in one of these languages."""
    for page, text in PAGES.items():
        yield from ((page, found[2]) for found in FENCED.finditer(text) if found[1] in languages)


def inline(text: str) -> Iterator[str]:
    """Yield what stands between backticks in a text."""
    yield from re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


# The words of every command, one of Slurm's being that which it runs; $NAME stays as it is.
WORDS = dict.fromkeys(
    tuple(words[words[0] == "srun" :])
    for _, text in blocks("", "sh", "bash")
    for line in text.splitlines()
    if (words := shlex.split(line, comments=True))
)


def commands(*start: str) -> list[Any]:
    """Return the commands that start with these words as parameters of a test, named by what is asked of them."""
    return [pytest.param(words[len(start) :], id=" ".join(words)) for words in WORDS if words[: len(start)] == start]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the least case that can run, where this file is a plugin of a command's run: the others differ in numbers alone."""
    able = [item for item in items if not item.get_closest_marker("skip")]
    items[:] = sorted(able, key=lambda item: work_of(Shape.parse(item.callspec.params["shape"])))[:1]  # type: ignore[attr-defined]


def work_of(shape: Shape) -> int:
    return shape.batch * sum(rows * columns for rows, columns in itertools.pairwise(shape.sizes))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as a user has it after some runs on this machine, the seventh of which made a case slower."""
    storage = tmp_path / ".benchmarks" / "machine"
    storage.mkdir(parents=True)
    for number in range(1, RUNS + 1):
        level = (1.0 if number > RUNS // 2 else 2.0) + number % 3 / 1000
        speedups = [level + process / 1000 for process in range(12)]
        case = row(
            speedup=level, speedup_low=level, speedup_high=speedups[-1], process_speedups=speedups,
            process_numbers=[*range(12)], process_seconds=[1e-3] * 12, process_dense_seconds=[one * 1e-3 for one in speedups],
        )  # fmt: skip
        time = f"2026-01-{number:02}T00:00:00+00:00"
        content = saved({"bench/bench_layer.py::bench_forward[tiled-0.9]": case}, datetime=time)
        (storage / f"{number:04}_run.json").write_text(json.dumps(content))
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    masks: dict[str, Any] = {"2.weight": np.eye(256, dtype=bool)}  # of the MLP among the examples
    np.savez(tmp_path / "masks.npz", **masks)
    (tmp_path / "runs").symlink_to(tmp_path / ".benchmarks")
    monkeypatch.setenv("SCRATCH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_is_of_a_kind_that_is_looked_at() -> None:
    programs = {words[:1] for words in WORDS} - {PYTEST, TOOL[:1], ("make",), *((name,) for name in OUTSIDE)}
    assert not programs, f"expected commands that a test here runs, or output in a block of ```text, got {programs}"
    assert all(words[: len(TOOL)] == TOOL for words in WORDS if words[0] == TOOL[0])
    assert all(words[1] == "bench" or words[1].startswith("tests/") for words in WORDS if words[:1] == PYTEST)


@pytest.mark.parametrize("asked", commands(*PYTEST, "bench"))
def test_a_case_of_what_is_asked_runs(asked: tuple[str, ...], place: Path) -> None:
    """Untimed: what saving, comparing and resuming do with times has tests of its own; their options are parsed."""
    done = run(*map(os.path.expandvars, asked), "--benchmark-disable", *SWIFT, "-p", "tests.test_docs", cwd=place)
    known = {**LAYERS.absent, **DATA.absent}
    absent = [message for name, message in known.items() if any(name in word.split(",") for word in asked)]
    if "cuda" in asked and not torch.cuda.is_available():
        absent.append("expected a CUDA device, got none")
    if absent:  # what this machine lacks is said
        assert (done.returncode, any(message in done.stderr for message in absent)) == (4, True), done.stderr
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"\b1 passed", done.stdout), done.stdout


@pytest.mark.parametrize("asked", [one for one in commands(*PYTEST) if one.values[0][0] != "bench"])
def test_a_test_that_is_named_is_collected(asked: tuple[str, ...]) -> None:
    done = run(*asked, "--collect-only", *SWIFT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("asked", commands(*TOOL))
def test_a_tool_does_what_is_asked(asked: tuple[str, ...], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that a command names by machine are those of this checkout."""
    if any(word.startswith(".benchmarks/") or word == "--machine" for word in asked):
        monkeypatch.chdir(ROOT)
    handed_on: list[str] = []

    def parsed(arguments: argparse.Namespace, _: object) -> int:
        handed_on.extend(arguments.others)
        return 0

    if asked[0] in MEASURING:
        monkeypatch.setattr(TOOLS[asked[0]], "run", parsed)
    code = main([os.path.expandvars(word) for word in asked])
    assert code == 0 or (code == 1 and "--fail" in asked)
    if handed_on:
        done = run(*handed_on, "--collect-only", *SWIFT)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: python -m bench {name} ")


@pytest.mark.parametrize("asked", commands("make"))
def test_make_knows_what_is_asked(asked: tuple[str, ...]) -> None:
    command, english = ["make", "--dry-run", *asked], os.environ | {"LC_ALL": "C"}
    assert "Nothing to be done" not in output(command, cwd=ROOT, env=english)  # as for the name of a folder


def test_the_examples_run() -> None:
    """In one process of their own, for they enter layers and update rules; a block of settings is read as the gate reads it."""
    examples = [text for _, text in blocks("python")]
    assert len(examples) >= 4
    program = "import json, sys\nfor example in json.load(sys.stdin):\n    exec(example, {'__name__': 'example'})"
    output([sys.executable, "-c", program], input=json.dumps(examples), cwd=ROOT)


def test_the_settings_are_read(tmp_path: Path) -> None:
    settings = [text for _, text in blocks("toml")]
    assert settings
    for text in settings:
        (tmp_path / "pyproject.toml").write_text(text)
        assert read_limits("10%", tmp_path).patterns


def options_of_tool(name: str) -> list[str]:
    parser = argparse.ArgumentParser(add_help=False)
    TOOLS[name].add_arguments(parser)
    return [option for action in parser._actions for option in action.option_strings]


@pytest.mark.parametrize("page", PAGES)
def test_every_option_that_is_named_exists(page: str, pytestconfig: pytest.Config) -> None:
    of_tools = {"--help", *(option for name in TOOLS for option in options_of_tool(name))}
    named = [code for code in inline(PAGES[page]) if not code.startswith("pip ")]
    for option in re.findall(r"(?<!\S)--[a-z][a-z-]+", " ".join(named)):
        assert option in of_tools or pytestconfig.getoption(option, default=of_tools) is not of_tools, option


def test_every_option_is_told() -> None:
    told = PAGES["docs/options.md"].splitlines()
    suite: list[str] = []
    add_options(SimpleNamespace(addoption=lambda name, **_: suite.append(name)))
    assert len(suite) > 10
    for option in suite:
        assert any(line.startswith(f"| `{option}` |") for line in told), option
    for name in TOOLS:
        for option in options_of_tool(name):
            assert any(line.startswith("|") and f"`{name}`" in line and f"`{option}`" in line for line in told), (name, option)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_and_link_leads_somewhere(page: str) -> None:
    for code in inline(PAGES[page]):
        if re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", code) and ("/" in code or code.endswith((".py", ".md", ".toml"))):
            assert any(ROOT.glob(code)), code
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", FENCED.sub("", PAGES[page])):
        if "://" not in link:
            assert ((ROOT / page).parent / link).exists(), link


def test_the_map_of_names_is_right() -> None:
    """In a row, the names after a file's are in that file."""
    found = []
    for line in PAGES["CONTRIBUTING.md"].splitlines():
        text = ""
        for code in inline(line) if line.startswith("|") else ():
            if code.endswith(".py"):
                text = (ROOT / code).read_text()
            elif text:
                assert re.search(rf"^(def )?{code}\b", text, re.MULTILINE), (code, line)
                found.append(code)
    assert len(found) >= 8


@pytest.mark.parametrize(("page", "most"), MOST_LINES.items())
def test_a_page_is_short(page: str, most: int) -> None:
    lines = PAGES[page].splitlines()
    assert len(lines) <= most
    assert max(len(line) for line in lines if not line.startswith("|")) <= 128
