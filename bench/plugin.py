"""The pytest plugin: options, the parametrization of the cases, the rows, and the answer in the terminal."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest
import torch

from bench.cases import Case, cases
from bench.options import add_options, read_options
from bench.row import Row
from bench.tables import answer
from sparse_models.registry import LAYERS

SELECTION = pytest.StashKey()  # type: ignore[var-annotated]  # Selection
ROWS = pytest.StashKey[list[Row]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    add_options(parser.getgroup("sparse-models", "what to measure (comma lists)"))


def pytest_configure(config: pytest.Config) -> None:
    """Check the command line before anything runs."""
    config.stash[SELECTION] = read_options(config)
    config.stash[ROWS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every function that takes a `case` by the grid of the operation it is named after."""
    if "case" in metafunc.fixturenames:
        op = metafunc.function.__name__.removeprefix("bench_")
        grid = cases(op, metafunc.config.stash[SELECTION])
        metafunc.parametrize(Case._fields, [pytest.param(*case, id=case.id, marks=_skips(case)) for case in grid])


def _skips(case: Case) -> list[pytest.MarkDecorator]:
    layer = LAYERS[case.layer]
    reasons = [
        f"{case.layer} runs on {', '.join(able)}, not on {asked}"
        for asked, able in ((case.device, layer.devices), (case.dtype, layer.dtypes))
        if asked not in able
    ]
    return [pytest.mark.skip(reason=reason) for reason in reasons]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the operations that were not asked for, and functions to which the selection left no case."""
    ops = config.stash[SELECTION].ops

    def wanted(item: pytest.Item) -> bool:
        if "case" not in getattr(item, "fixturenames", ()):
            return True
        params = item.callspec.params  # type: ignore[attr-defined]  # a parametrized function's
        return params.get("op") in ops

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]


@pytest.fixture
def case(
    op: str,
    model: str,
    layer: str,
    update: str,
    shape: str,
    sparsity: float,
    device: str,
    dtype: str,
    threads: int,
    data: str,
    protocol: str,
    seed: int,
) -> Iterator[Case]:
    """The case at hand, with PyTorch set to its number of threads while it runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    yield Case(op, model, layer, update, shape, sparsity, device, dtype, threads, data, protocol, seed)
    torch.set_num_threads(before)


@pytest.fixture
def record(request: pytest.FixtureRequest, benchmark: Any) -> Callable[[Row], None]:
    """Return what takes a finished row: it goes to the saved run and to the tables."""

    def take(row: Row) -> None:
        benchmark.extra_info.update(row)
        request.config.stash[ROWS].append(row)

    return take


@pytest.hookimpl(tryfirst=True)
def pytest_keyboard_interrupt(excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Leave out of the report of Ctrl-C the frames that have no line number, on which pytest's report would fail.

    CPython 3.11 interrupts at such places; what was measured is saved either way.
    """

    def has_line(entry: Any) -> bool:
        try:
            return entry.lineno is not None
        except TypeError:
            return False

    excinfo.traceback = excinfo.traceback.filter(has_line)


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Take the host's name out of what is saved, and put in what decides a PyTorch timing."""
    machine_info.pop("node", None)
    machine_info["torch"] = {
        "version": torch.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkl": torch.backends.mkl.is_available(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None]:
    """Print the answer after pytest-benchmark's own table, also where that ends in --benchmark-compare-fail."""
    try:
        return (yield)
    finally:
        rows = config.stash.get(ROWS, [])
        if rows:
            terminalreporter.section("do sparse networks save compute?")
            for line in answer(rows):
                terminalreporter.write_line(line)
