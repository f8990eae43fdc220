"""The command line: what is asked, checked before anything runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench import cases, grids
from bench.comparisons.gate import TABLE, Limits, read_limits
from bench.engine.jobs import BUDGET, PRECISION, PROCESSES, Effort
from bench.hooks import values
from bench.hooks.own_model import add_model_options, with_model
from bench.machine.facts import has_bfloat16
from bench.selection import Selection
from bench.shapes import Shape, for_no_data
from sparse_models.data import DATA
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.loading import FORMS
from sparse_models.masks import DISTRIBUTIONS, check_sparsity
from sparse_models.updates import UPDATES

_T = TypeVar("_T")
OF_LAYERS = ("--regime", "--skew")  # an epoch of a training is what it is


def add_options(group: Any) -> None:
    """Add the suite's options to a pytest option group."""
    for name, text in {
        "--op": f"operations ({', '.join(grids.OPS)}); default: {', '.join(grids.DEFAULT_OPS)}",
        "--layer": f"layers ({', '.join(LAYERS)}); default: the suite's own, for train {' or '.join(grids.BEST_LAYERS)}",
        "--update": f"update rules ({', '.join(UPDATES)}); default: {', '.join(n for n in UPDATES if UPDATES[n].is_default)}",
        "--shape": f"sizes and batch, as in 256x256b4096; default: {', '.join(grids.SHAPES)}, and an MLP; for train its data's",
        "--sparsity": f"fractions of zeros; default: {','.join(map(str, grids.SPARSITIES))}",
        "--device": "cpu, cuda, or auto for cuda where there is one; default: auto",
        "--dtype": f"number types ({', '.join(grids.DTYPES)}); default: float32, and dense in bfloat16 if the machine has it",
        "--threads": "numbers of CPU threads; default: PyTorch's own, or fewer where a quota of CPU time is",
        "--regime": f"regimes ({', '.join(grids.REGIMES)}): warm caches, cold ones, busy cores, a CUDA graph replayed, "
        "with cold weights; default: warm, on a GPU graph, or graph-cold for the forward pass of few samples",
        "--skew": "variation of the rows' non-zeros, as 0.25 (pruned layers have about that); default: 0, masks at random",
        "--zeros": "share of the inputs that are 0, as ReLU leaves 0.5 to 0.95 of them, for forward; default: 0",
        "--distribution": f"of sparsity over layers, for train ({', '.join(DISTRIBUTIONS)}); default: {grids.DISTRIBUTION}",
        "--data": f"data sets for train ({', '.join((*DATA, *FORMS))}); default: {', '.join(grids.DEFAULT_PROTOCOLS)}",
        "--protocol": f"protocols for train ({', '.join(grids.PROTOCOLS)}); default: what says most of each data set",
    }.items():
        group.addoption(name, metavar="LIST", help=text)
    add_model_options(group)
    group.addoption(
        "--grid",
        metavar="EXTENT",
        help="default: what the answer needs; full: every operation, layer, sparsity, data set and protocol",
    )
    group.addoption("--processes", metavar="N", help=f"fresh processes for each case, at most; default: {PROCESSES}")
    group.addoption(
        "--precision", metavar="FRACTION", help=f"half-width of the interval at which a case is done; default: {PRECISION:g}"
    )
    group.addoption("--budget", metavar="SECONDS", help=f"time after which no case is measured further; default: {BUDGET:g}")
    group.addoption("--answer-only", action="store_true", help="print the short answer alone, without tables and progress")
    group.addoption("--energy", action="store_true", help="joules of a call too, where a GPU tells them; half a second a case")
    group.addoption(
        "--report",
        nargs="?",
        const=True,
        metavar="FILE",
        help="write a page to look at, here or as report.html beside this machine's runs; .md, .csv ... by the end of its name",
    )
    group.addoption("--resume", action="store_true", help="go on with the newest broken run of these cases, if there is one")
    group.addoption(
        "--fail-slower",
        metavar="PERCENT",
        help="with --benchmark-compare: fail where a case is slower beyond doubt and by as much (10%%), or cannot be compared; "
        f"others by pattern in pyproject.toml, [{TABLE}]",
    )
    group.addoption("--seeds", metavar="N", help=f"trainings of each arm for train; default: {grids.SEEDS}")
    group.addoption("--epochs", metavar="N", help="epochs of a training; default: what its data set needs")
    group.addoption("--interval", metavar="N", help=f"steps between mask updates, for train; default: {grids.UPDATE_INTERVAL}")


def read_options(config: pytest.Config) -> Selection:
    """Return the selection that the command line makes; raises pytest.UsageError, one sentence, for bad input."""

    def given(option: str, convert: Callable[[str], _T]) -> tuple[_T, ...] | None:
        def listed(text: str) -> tuple[_T, ...]:
            return tuple(dict.fromkeys(convert(part.strip()) for part in text.split(",")))

        return _given(config, option, listed)

    devices = given("--device", values.device)
    is_full = _given(config, "--grid", values.one_of("grid", grids.EXTENTS)) == "full"
    selection = Selection(
        ops=given("--op", values.one_of("operation", grids.OPS)) or _default_ops(config, is_full=is_full),
        layers=given("--layer", values.one_of("layer", LAYERS)),
        updates=given("--update", values.one_of("update rule", UPDATES)),
        shapes=given("--shape", lambda text: str(Shape.parse(text))),
        sparsities=given("--sparsity", check_sparsity),  # type: ignore[arg-type]  # takes text as well
        devices=devices or (values.device("auto"),),
        dtypes=given("--dtype", values.one_of("dtype", grids.DTYPES)),
        threads=given("--threads", values.threads) or (values.threads(None),),
        regimes=given("--regime", values.one_of("regime", grids.REGIMES)),
        data=given("--data", values.data_set),
        protocols=given("--protocol", values.one_of("protocol", grids.PROTOCOLS)),
        seeds=_given(config, "--seeds", values.replications) or grids.SEEDS,
        skews=given("--skew", values.skew) or (0.0,),
        distributions=given("--distribution", values.one_of("distribution", DISTRIBUTIONS)) or (grids.DISTRIBUTION,),
        zeros=given("--zeros", check_sparsity),  # type: ignore[arg-type]
        is_full=is_full,
        epochs=_given(config, "--epochs", values.whole),
        interval=_given(config, "--interval", values.whole),
        rivals=("bfloat16",) if has_bfloat16() else (),
    )
    selection = with_model(config, selection)
    for option in not_for_train(config, selection):
        if selection.ops == ("train",):
            raise pytest.UsageError(f"{option}: expected an operation that takes it, got train alone, which has its own")
    unfit = for_no_data(selection) if selection.ops == ("train",) else None
    if unfit is not None:
        raise pytest.UsageError(unfit)
    left = [op for op in selection.ops if any(cases.cases(op, selection))]
    if config.getoption("--op") is not None and len(left) < len(selection.ops):
        empty = ", ".join(op for op in selection.ops if op not in left)
        raise pytest.UsageError(
            f"--op: expected layers and update rules that leave every operation a case, got none for {empty}; "
            "update needs a sparse layer and a rule that moves its masks"
        )
    updated = {case.update for op in {"update", "train"} & set(selection.ops) for case in cases.cases(op, selection)}
    for name in set(selection.updates or ()) - updated if updated else ():
        layers = [layer for layer, kind in LAYERS.items() if UPDATES[name].only == kind.pattern]
        if layers:
            raise pytest.UsageError(f"--update: expected layers whose masks {name} moves, got none; add --layer {layers[0]}")
    return selection


def _default_ops(config: pytest.Config, *, is_full: bool) -> tuple[str, ...]:
    """Return the operations of the grid, and those whose functions are named, as in bench/bench_layer.py::bench_backward."""
    functions = {argument.partition("::")[2].partition("[")[0] for argument in config.args}
    default = grids.DEFAULT_OPS if config.getoption("--model") is None else grids.DEFAULT_OPS_OF_A_MODEL
    return tuple(op for op in grids.OPS if is_full or op in default or f"bench_{op}" in functions)


def not_for_train(config: pytest.Config, selection: Selection) -> list[str]:
    """Return the options given that trainings, which were selected, do not follow."""
    return [option for option in OF_LAYERS if "train" in selection.ops and config.getoption(option) is not None]


def read_effort(config: pytest.Config) -> Effort:
    """Return how much the command line asks to measure; raises pytest.UsageError, one sentence, for bad input."""
    return Effort(
        processes=_given(config, "--processes", values.replications) or PROCESSES,
        precision=_given(config, "--precision", values.positive) or PRECISION,
        budget=_given(config, "--budget", values.positive) or BUDGET,
        energy=bool(config.getoption("--energy")),
    )


def read_compared(config: pytest.Config) -> Any:
    """Return what to compare with, True for the newest run and [] for none; raises pytest.UsageError for what is no run."""
    asked = config.option.benchmark_compare
    if asked == "" or (isinstance(asked, str) and Path(asked).is_dir()):
        raise pytest.UsageError(
            f"--benchmark-compare: expected a saved run, got {asked!r}{', a folder' if asked else ''}; name one, as in "
            "--benchmark-compare=0001, or write it last, with nothing behind it, for the newest"
        )
    return asked


def read_gate(config: pytest.Config) -> Limits | None:
    """Return what is to fail the run, None where nothing is; raises pytest.UsageError, one sentence, for bad input."""
    limits = _given(config, "--fail-slower", lambda text: read_limits(text, config.rootpath))
    if limits and not config.getoption("benchmark_compare"):
        raise pytest.UsageError("--fail-slower: expected --benchmark-compare beside it, got none; name the run to compare with")
    return limits


def _given(config: pytest.Config, option: str, convert: Callable[[str], _T]) -> _T | None:
    """Return an option's value, None where it was not given; raises pytest.UsageError, one sentence, for bad input."""
    text = config.getoption(option)
    try:
        return None if text is None else convert(text)
    except InputError as error:
        raise pytest.UsageError(f"{option}: {error}") from None
