"""The body that measures pruned networks: masks as text, facts, and what is not timed."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench import bench_pruned, grids
from bench.bench_pruned import flops_of, pack, pruned, unpacked
from bench.cases import Case, cases
from bench.engine.pairing import Plan
from bench.models.pruned import drawn, example_of
from bench.selection import Selection
from bench.works.once_per_run import KNOWN
from bench.works.replays import Works, listed
from sparse_models.errors import GateError
from tests.strategies import masks

CASE = Case("pruned", "sparse", "tiled", "static", "64x256x256x10b1", 0.9, "cpu", "float32", 1, "digits-mlp")


class Race:
    """Runs both works once."""

    once = True
    outputs: tuple[Any, ...] = ()

    def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
        self.outputs = tuple(listed(works)[0]() for works in (candidate, reference))


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    before = dict(KNOWN)
    KNOWN.clear()
    yield
    KNOWN.clear()
    KNOWN.update(before)


@given(st.data())
def test_a_mask_is_read_back_from_its_text(data: st.DataObject) -> None:
    mask = data.draw(masks())
    module = nn.Sequential(nn.Linear(mask.shape[1], mask.shape[0]))
    assert torch.equal(unpacked({"0": pack(mask)}, module)["0"], mask)


@pytest.mark.parametrize(("name", "shape"), [("digits-mlp", "64x256x256x10b1"), ("digits-conv", "64x10b3")])
def test_a_row_has_accuracies_sizes_and_flops(name: str, shape: str) -> None:
    race = Race()
    facts = bench_pruned.bench_pruned(CASE._replace(data=name, shape=shape), race)
    assert all(len(facts[f"{when}_accuracies"]) == 1 for when in ("dense", "pruned", "tuned"))
    assert facts["test_accuracy"] == facts["tuned_accuracies"][0]
    dense = drawn(name, 0)
    weights = [one.weight.numel() for one in dense.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    assert facts["weights"] == sum(weights)
    assert facts["nnz"] == pytest.approx(0.1 * sum(weights[:-1]) + weights[-1], abs=len(weights))
    assert facts["dense_bytes_stored"] == 4 * sum(one.numel() for one in dense.parameters())
    assert facts["bytes_stored"] < facts["dense_bytes_stored"]
    with FlopCounterMode(display=False) as counter:
        dense(example_of(name, int(shape.split("b")[1])).batch[0])
    assert facts["dense_flops_counted"] == counter.get_total_flops() > facts["flops_counted"] > 0
    assert [output.shape for output in race.outputs] == [(int(shape.split("b")[1]), 10)] * 2


def test_flops_of_a_dense_network_are_all_of_them() -> None:
    facts = flops_of(example_of("digits-mlp", 2))
    assert len({*facts.values()}) == 1


@pytest.mark.parametrize("way", bench_pruned.WAYS)
def test_a_network_that_puts_out_anything_else_is_not_timed(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bench_pruned.ways_of

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        with torch.no_grad():
            next(found[way].module.parameters()).mul_(1.1)
        return found

    monkeypatch.setattr(bench_pruned, "ways_of", wrong)
    race = Race()
    with pytest.raises(GateError, match=r"tiled: its output is off .*; nothing is timed"):
        bench_pruned.bench_pruned(CASE, race)
    assert race.outputs == ()


def cases_of(**asked: Any) -> list[Case]:
    selection = Selection(
        ops=("pruned",), layers=None, updates=None, shapes=None, sparsities=None, devices=("cpu",), dtypes=None, threads=(1,),
        regimes=None, data=None, protocols=None, seeds=3,
    )  # fmt: skip
    return list(cases("pruned", selection._replace(**asked)))


def test_by_default_two_networks_are_pruned_to_two_sparsities_and_all_of_them_in_the_full_grid() -> None:
    default, full = cases_of(), cases_of(is_full=True)
    assert {case.data for case in default} == {"digits-mlp", "digits-conv"}
    assert {case.sparsity for case in default} == {*grids.DEFAULT_PRUNED_SPARSITIES}
    assert {case.data for case in full} == {*grids.NETWORKS}
    assert {case.sparsity for case in full} == {*grids.PRUNED_SPARSITIES}
    for found in (default, full):
        assert {case.layer for case in found} == {"tiled"}
        assert len({case.id for case in found}) == len(found) == len({(one.data, one.shape, one.sparsity) for one in found})


def test_networks_layers_and_sparsities_are_those_that_are_asked_for() -> None:
    asked = cases_of(data=("mnist5k",), layers=("csr", "dense", "compact"), sparsities=(0.7,))
    assert {(case.data, case.layer, case.sparsity) for case in asked} == {("mnist5k-mlp", "csr", 0.7)}
    assert cases_of(devices=("cuda",)) == cases_of(data=("random",)) == []


def test_a_network_is_pruned_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    first = pruned("digits-mlp", "tiled", 0.9, 1, 0, 1, 1)
    monkeypatch.setattr(bench_pruned, "prune", lambda *_: pytest.fail("expected no second time"))
    assert pruned("digits-mlp", "tiled", 0.9, 1, 0, 1, 1) == first
    assert grids.SEEDS >= 3


def test_the_first_seed_s_network_is_what_is_timed_and_the_others_are_accuracies_alone() -> None:
    (first, masks, failure), (second, no_masks, _) = (pruned("digits-mlp", "tiled", 0.9, 1, seed, 2, 1) for seed in range(2))
    assert failure == ""
    assert masks
    assert not no_masks
    assert len(first) == len(second) == 3
    assert first != second
