"""What the command line asks for: its words as they were given, and whether a case of an older run is among it."""

from functools import lru_cache
from types import SimpleNamespace

import pytest
from _pytest.mark.expression import Expression  # which pytest-benchmark's own -k takes too

from bench import grids
from bench.cases import cases
from bench.hooks.options import add_options
from bench.hooks.state import DESELECTED, SELECTION
from bench.runs.saved import SavedRow, arm_of
from bench.selection import Selection

NO_MATTER = ("--report", "--resume", "--answer-only", "--fail-slower")  # of what a run does beside measuring


def words_asked(config: pytest.Config) -> list[str]:
    """Return the suite's options as they were given, for who wants to measure the same again; where it is kept is no matter."""
    options: list[str] = []
    add_options(SimpleNamespace(addoption=lambda name, **_: options.append(name)))
    given = {name: config.getoption(name) for name in options if name not in NO_MATTER}
    keyword = {"-k": config.option.keyword} if config.option.keyword else {}
    words = ([name] if value is True else [name, str(value)] for name, value in (given | keyword).items() if value)
    return [word for each in words for word in each]


def was_asked(config: pytest.Config, name: str, row: SavedRow) -> bool:
    """Tell whether the command line asks for a case of an older run, had it been there to be asked for."""
    asked = config.stash[SELECTION]
    is_training = row.op in grids.TRAINED  # which have one regime and skew, and a shape that is their case's
    is_pruned, (data, _) = row.op == "pruned", grids.NETWORKS.get(row.data, (row.data, ""))
    is_model, own = row.op in grids.OF_A_MODEL, asked.model
    shapes = asked.shapes if not is_model or own is None else (own.shape,)
    chosen = [
        (row.op, asked.ops),
        ("dense" if row.model == grids.UNPRUNED else row.layer, (*asked.layers, "dense") if asked.layers else None),
        (row.update, asked.updates if row.op in ("train", "update") and row.model == "sparse" else None),
        (f"{row.shape}b{row.batch}", None if is_training or is_pruned else shapes),
        (row.sparsity, asked.sparsities if row.model in grids.OF_A_SPARSITY else None),
        (row.device, asked.devices),
        (row.dtype, asked.dtypes),
        (row.threads, asked.threads),
        (row.regime, None if is_training else asked.regimes),
        (row.skew, None if is_training else asked.skews),
        (row.zeros, asked.zeros if row.op in ("forward", "threshold") else None),
        (data, asked.data if is_training or is_pruned else None),
        (row.data, (own.reference if own else None,) if is_model else None),
        (row.protocol, asked.protocols if is_training else None),
        (row.distribution, asked.distributions if is_training and row.model in grids.OF_A_SPARSITY else None),
    ]
    if any(choice is not None and value not in choice for value, choice in chosen) or _is_left_out(asked, name):
        return False
    if is_training and (asked.shapes or asked.epochs or asked.interval) and _case_of(name) not in _names(asked):
        return False
    word = config.option.keyword
    if word and not Expression.compile(word).evaluate(lambda part, /, **_: str(part).lower() in name.lower()):
        return False
    return arm_of(name) not in config.stash[DESELECTED] and any(_covers(config, given, name) for given in config.args)


def _is_left_out(asked: Selection, name: str) -> bool:
    """Tell whether a case is of the full grid, or beside all layers, and not of what is selected."""
    case = _case_of(name)
    return case in _names(asked._replace(is_full=True, layers=None)) and case not in _names(asked)


def _case_of(name: str) -> str:
    return arm_of(name.rpartition("::")[2])


@lru_cache(maxsize=2)
def _names(selection: Selection) -> set[str]:
    return {arm_of(f"bench_{op}[{case.id}]") for op in grids.OPS for case in cases(op, selection)}


def _covers(config: pytest.Config, given: str, name: str) -> bool:
    """Tell whether a folder, file or node on the command line holds a case."""
    path, _, node = given.partition("::")
    whole = config.invocation_params.dir / path
    place = whole.relative_to(config.rootpath).as_posix() if whole.is_relative_to(config.rootpath) else path
    file = name.partition("::")[0]
    if node:
        return name.startswith(f"{place}::{node}")
    return place in (".", file) or file.startswith(f"{place}/")
