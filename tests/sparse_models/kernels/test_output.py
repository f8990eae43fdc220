"""The output of a chain of layers by one call, against its layers one by one."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.cpu import _team
from sparse_models.kernels.cpu.chain.few import FewSamples
from sparse_models.kernels.cpu.chain.output import Output
from sparse_models.kernels.link import Link
from sparse_models.kernels.variant import Variant
from sparse_models.models import MLP, draw
from tests.helpers.kernel_checks import BATCHES, Watcher, close
from tests.sparse_models.kernels.test_blocks import links as links_of_blocks
from tests.sparse_models.kernels.test_chain import links
from tests.sparse_models.kernels.test_emit import width
from tests.strategies import generator, mlp_of, normal, seeds, variants

__all__ = ["width"]  # a fixture
pytestmark = pytest.mark.usefixtures("poisoned")
NARROW, WIDE = (12, 16, 8, 4), (300, 270, 264, 4)  # in single precision the last are multiplied by copies for a single sample


def define(chain: list[Link], x: Tensor) -> Tensor:
    for number, link in enumerate(chain):
        x = torch.nn.functional.linear(torch.relu(x) if number else x, link.rows.dense(link.values), link.bias)
    return x


def check(chain: list[Link], x: Tensor, **options: Any) -> None:
    for laid, is_turned in ((x, False), (x.t().contiguous(), True)):
        close(Output(chain, len(x), is_turned=is_turned, **options).of(laid), define(chain, x))


@given(
    seeds,
    st.sampled_from([(1, 1, 1), (6, 30, 5), (30, 1, 7, 2), (20, 33, 5)]),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([0, 2**30]),
)
def test_an_output_is_that_of_layer_by_layer(
    seed: int, sizes: tuple[int, ...], batch: int, density: float, with_bias: bool, worth_a_team: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_team, "WORTH_A_TEAM", worth_a_team)
        check(links(seed, sizes, density, torch.float64, with_bias=with_bias), normal(seed, batch, sizes[0]))


@pytest.mark.parametrize("worth_a_team", [0, 2**30])
@pytest.mark.parametrize("batch", [1, 70, 300, 900])
@pytest.mark.parametrize(
    ("unit", "sizes", "dtype"),
    [
        ((4, 4), (12, 20, 8, 5), torch.float32),  # of edges that blocks divide, and of one that they do not
        ((3, 5), (11, 16, 7), torch.float64),
        ((32, 32), (70, 40, 3), torch.float32),
    ],
)
def test_an_output_of_blocks_is_that_of_layer_by_layer(
    unit: tuple[int, int], sizes: tuple[int, ...], dtype: torch.dtype, batch: int, worth_a_team: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_team, "WORTH_A_TEAM", worth_a_team)
        check(links_of_blocks(unit, sizes, dtype), normal(0, batch, sizes[0], dtype=dtype))


@settings(max_examples=6)
@given(st.sampled_from([1, 70, 300]), variants)
def test_an_output_in_every_variant_is_that_of_layer_by_layer(batch: int, variant: Variant) -> None:
    check(links(0, (20, 33, 5), 0.3, torch.float64, with_bias=True), normal(0, batch, 20), variant=variant)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_output_is_that_of_layer_by_layer_at_every_width(width: Any, dtype: torch.dtype) -> None:
    check(links(0, (20, 33, 5), 0.3, dtype, with_bias=True), normal(0, 70, 20, dtype=dtype))


@pytest.mark.parametrize("is_turned", [False, True])
@pytest.mark.parametrize("batch", [1, 70, 300])
@pytest.mark.parametrize("of_blocks", [False, True])
def test_an_output_touches_what_is_its_own(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, batch: int, is_turned: bool, of_blocks: bool
) -> None:
    x, sizes = torch.randn(4, batch) if is_turned else torch.randn(batch, 4), (4, 5, 3)
    plain = links(0, sizes, 0.5, torch.float32, with_bias=True)
    chain = links_of_blocks((2, 3), sizes, torch.float32) if of_blocks else plain
    output = Output(chain, batch, is_turned=is_turned)

    def run_on(function: int, arguments: Any, team: int) -> None:
        result, scratch = arguments[3:5]
        tensors = [x, *(tensor for tensor in output.held if isinstance(tensor, Tensor))]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.nbytes) for one in tensors] + [
            (result, result + 3 * 4 * batch),
            (scratch, scratch + output.scratch_bytes),
        ]
        _team.run_on(function, arguments, team)

    monkeypatch.setattr("sparse_models.kernels.cpu.chain.output.run_on", run_on)
    output.of(x)
    assert watcher.written
    assert not watcher.outside


def made(seed: int, sizes: tuple[int, ...] = NARROW, layer: str = "tiled") -> MLP:
    model = mlp_of(layer, draw(sizes, generator(seed)), 0.7, seed)
    return model.float().eval() if sizes == WIDE else model


@pytest.mark.parametrize("worth_a_team", [0, 2**30])
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_single_sample_is_multiplied_at_once(monkeypatch: pytest.MonkeyPatch, worth_a_team: int, with_bias: bool) -> None:
    monkeypatch.setattr(_team, "WORTH_A_TEAM", worth_a_team)
    model, x = made(0, WIDE), torch.randn(1, WIDE[0])
    for layer in [] if with_bias else model:
        layer.bias = None
    seen: list[Tensor | None] = []
    output = FewSamples.of

    def spy(self: FewSamples, given: Tensor) -> Tensor | None:
        seen.append(output(self, given))
        return seen[-1]

    monkeypatch.setattr(FewSamples, "of", spy)
    with torch.no_grad():
        first, *others = (model(x) for _ in range(3))
    assert len(seen) == 2
    for found in (*others, *seen):
        torch.testing.assert_close(found, first)
    assert seen[0] is not None


def test_a_single_sample_takes_as_many_threads_as_there_are_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_team, "WORTH_A_TEAM", 0)
    model, x, before, teams = made(0, WIDE), torch.randn(1, WIDE[0]), torch.get_num_threads(), list[int]()
    monkeypatch.setattr("sparse_models.kernels.cpu.chain.few.run_on", lambda *given: teams.append(given[2]))
    with torch.no_grad():
        for threads in (before, 1):
            torch.set_num_threads(threads)
            for _ in range(3):
                model(x)
    torch.set_num_threads(before)
    assert (set(teams[:2]), set(teams[2:])) == ({_team.threads()}, {1})


def test_a_single_sample_touches_what_is_its_own(watcher: Watcher, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = made(0, WIDE), torch.randn(1, WIDE[0])

    def run_on(function: int, arguments: Any, team: int) -> None:
        single = vars(model.layers[0])["_few"][1].of.__self__
        held = [tensor for layer in single.layers for tensor in (*layer.packed[:5], layer.bias) if tensor is not None]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.nbytes) for one in (x, *held)]
        watcher.may += [(at, at + 4 * size) for at, size in zip(arguments[3:5], (WIDE[3], sum(WIDE[1:3])), strict=True)]
        _team.run_on(function, arguments, team)

    monkeypatch.setattr("sparse_models.kernels.cpu.chain.few.run_on", run_on)
    monkeypatch.setattr("sparse_models.kernels.cpu.few.frozen.run_on", _team.run_on)
    watcher.outside = []
    with torch.no_grad():
        model(x)
        watcher.outside, watcher.written = [], {}
        model(x)
    assert watcher.written
    assert not watcher.outside
