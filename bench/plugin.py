"""The pytest plugin: options, the parametrization of the cases, the rows, and the answer in the terminal."""

from collections.abc import Generator, Iterator
from functools import wraps
from typing import Any

import pytest
import torch

from bench.cases import Case, cases
from bench.engine.pairing import Plan
from bench.findings.answer import answer_of
from bench.findings.break_even import break_evens
from bench.findings.short_answer import short_answer
from bench.grids import NETWORKS, OF_A_SPARSITY, REPLAYED, STORED, stored
from bench.hooks.options import add_options, read_effort, read_options
from bench.hooks.own_model import layers_by_shape, layers_told
from bench.hooks.screen import machine_of, screen_of
from bench.hooks.state import EFFORT, MACHINE, NOTES, OUTCOMES, REPORTED, ROWS, SELECTION
from bench.tables.answer import lines
from bench.tables.short_answer import headlines
from bench.works.compiled import COMPILED, can_compile
from bench.works.replays import Work, Works, listed
from sparse_models.data import DATA
from sparse_models.errors import DivergedError, GateError
from sparse_models.kernels import choice
from sparse_models.layers import LAYERS

pytest_plugins = ["bench.hooks.measuring", "bench.hooks.session", "bench.hooks.last_lines", "bench.hooks.reporting"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    add_options(parser.getgroup("sparse-models", "what to measure (comma lists)"))


def pytest_configure(config: pytest.Config) -> None:
    """Check the command line before anything runs."""
    config.stash[SELECTION] = read_options(config)
    config.stash[EFFORT] = read_effort(config)
    config.stash[NOTES] += layers_told(config.stash[SELECTION])
    config.stash[REPORTED] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize every function that takes a `case` by the grid of the operation it is named after."""
    if "case" in metafunc.fixturenames:
        op = metafunc.function.__name__.removeprefix("bench_")
        grid = cases(op, metafunc.config.stash[SELECTION])
        metafunc.parametrize(Case._fields, [pytest.param(*case, id=case.id, marks=_skips(case)) for case in grid])


def _skips(case: Case) -> list[pytest.MarkDecorator]:
    layer, kind = LAYERS[case.layer], torch.device(case.device).type
    reasons = []
    if kind not in layer.devices:
        missing = f" ({layer.absent[kind]})" if kind in layer.absent else ""
        reasons.append(f"{case.layer} runs on {', '.join(layer.devices)}, not on {case.device}{missing}")
    elif stored(case.dtype) not in layer.dtypes_on(kind):
        reasons.append(f"{case.layer} runs on {', '.join(layer.dtypes_on(kind))}, not on {case.dtype}")
    if kind == "cpu" and (case.regime in REPLAYED or case.dtype in STORED):
        what = (
            "graphs to replay; ask for --regime warm, cold or busy"
            if case.regime in REPLAYED
            else f"{case.dtype}; leave it out"
        )
        reasons.append(f"a CPU has no {what}")
    if case.model == COMPILED and not can_compile(case.device):
        reasons.append(f"train {COMPILED}: PyTorch finds no compiler, or TORCH_COMPILE_DISABLE is set")
    data, _ = NETWORKS.get(case.data, (case.data, ""))
    if data in DATA.absent:
        reasons.append(f"{case.op} {case.data}: {DATA.absent[data]}")
    return [pytest.mark.skip(reason=reason) for reason in reasons]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the operations that were not asked for, and functions to which the selection left no case."""
    ops = config.stash[SELECTION].ops

    def wanted(item: pytest.Item) -> bool:
        return "case" not in getattr(item, "fixturenames", ()) or _params(item).get("op") in ops

    dropped = [item for item in items if not wanted(item)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if wanted(item)]
    sparse = [item for item in items if _params(item).get("model") in OF_A_SPARSITY]
    skips = [skip for item in sparse if (skip := item.get_closest_marker("skip"))]
    reasons = list(dict.fromkeys(str(skip.kwargs["reason"]) for skip in skips))
    if skips and len(skips) == len(sparse):  # dense without another is beside nothing
        raise pytest.UsageError(f"expected a case that can run here, got none of {len(skips)}: {'; '.join(reasons)}")
    config.stash[NOTES] += [f"skipped: {reason}" for reason in reasons]


def _params(item: pytest.Item) -> dict[str, Any]:
    """Return the fields of the case that a function stands for; none where the selection left it no case, or it takes none."""
    is_case = "case" in getattr(item, "fixturenames", ())
    return item.callspec.params if is_case and hasattr(item, "callspec") else {}


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
    regime: str,
    skew: float,
    distribution: str,
    asked_epochs: int,
    asked_interval: int,
    zeros: float,
) -> Iterator[Case]:
    """The case at hand, with PyTorch set to its number of threads while it runs; our kernels are as by default.

    Nothing is timed in this process: to measure variants here would only take time.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    choice.hold({})
    what = (op, model, layer, update, shape, sparsity, device, dtype, threads)
    yield Case(*what, data, protocol, seed, regime, skew, distribution, asked_epochs, asked_interval, zeros)
    torch.set_num_threads(before)
    choice.forget()


class Once:
    """A Racer that runs both works once: what --benchmark-disable asks for."""

    once = True

    def __init__(self, benchmark: Any) -> None:
        """Run the candidate by pytest-benchmark's fixture."""
        self.benchmark = benchmark
        self.candidate: Work = lambda: None

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:  # noqa: ARG002
        """Run both once, untimed; or keep the candidate for --benchmark-cprofile."""
        self.candidate = listed(candidate)[0]
        if not self.benchmark.disabled:
            return
        listed(reference)[0]()
        self.benchmark.pedantic(self.candidate)


@pytest.fixture
def race(benchmark: Any) -> Once:
    """What a benchmark body times its works with, where pytest itself runs it; fresh processes have their own."""
    return Once(benchmark)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Report what the fresh processes measured of a case; run its body once where timing is disabled."""
    values: dict[str, Any] = pyfuncitem.funcargs
    if "case" not in values or not isinstance(values.get("race"), Once):
        return None
    case, once = values["case"], values["race"]
    benchmark = once.benchmark
    if benchmark.disabled or benchmark.cprofile:
        try:
            pyfuncitem.obj(case=case, race=once)
        except (GateError, DivergedError) as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
    if benchmark.disabled:
        return True
    outcome = pyfuncitem.config.stash[OUTCOMES][pyfuncitem.nodeid]
    if outcome.failure is not None:
        pytest.fail(outcome.failure, pytrace=False)
    if not outcome.races:
        pytest.skip("the time was spent before this case had its turn; ask for more with --budget")
    if not outcome.speedups:
        pytest.skip("every pair was disturbed by other processes; try fewer --threads, more --budget, or a quieter machine")
    row = pyfuncitem.config.stash[ROWS][pyfuncitem.nodeid]
    benchmark.group = case.group  # before its rounds
    replay(benchmark, row["pair_seconds"], once.candidate)
    benchmark.extra_info.update(row)
    pyfuncitem.config.stash[REPORTED][pyfuncitem.nodeid] = row
    return True


def replay(benchmark: Any, seconds: list[float], profiled: Work) -> None:
    """Give pytest-benchmark the times that were measured, as the rounds of its fixture.

    Its clock is replaced by one that reads 0 before and the measured time after each round. Private, and covered by a test.
    Past the rounds comes --benchmark-cprofile, which profiles one call of the candidate in this process.
    """
    timer = benchmark._timer
    readings = iter([reading for time in seconds for reading in (0.0, time)])
    benchmark._timer = wraps(timer)(lambda: next(readings))  # saved runs name the timer
    rounds = iter(range(len(seconds)))
    benchmark.pedantic(lambda: profiled() if next(rounds, None) is None else None, rounds=len(seconds))


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
    """Take the host's name out of what is saved, and put in what decides a PyTorch timing and stays the same on a machine."""
    machine_info.pop("node", None)
    for rate in ("hz_actual", "hz_actual_friendly", "hz_advertised", "hz_advertised_friendly"):  # of the moment, where virtual
        machine_info.get("cpu", {}).pop(rate, None)
    machine_info["torch"] = {"version": torch.__version__, "cpu_capability": torch.backends.cpu.get_cpu_capability()}


@pytest.hookimpl(tryfirst=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Save the machine's facts, what it could do at the start of the run, and the names of a model's layers beside the rows."""
    output_json["machine"] = config.stash.get(MACHINE, {})
    if (layers := layers_by_shape(config.stash[SELECTION])) is not None:
        output_json["model_layers"] = layers
    output_json["break_even"] = list(break_evens(config.stash[REPORTED].values()))


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None]:
    """Print the answer after pytest-benchmark's own table, also where that ends in --benchmark-compare-fail."""
    try:
        return (yield)
    finally:
        rows = list(config.stash[REPORTED].values())
        if rows and not config.option.answer_only:
            terminalreporter.section("do sparse networks save compute?")
            screen = screen_of(terminalreporter)
            for line in (*headlines(short_answer(rows, machine_of(config)), screen), "", *lines(answer_of(rows), screen)):
                terminalreporter.write_line(line)
