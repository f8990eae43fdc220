"""A whole training step of a chain of layers by one call, against its definition: gradients, then PyTorch's own optimizer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.kernels.chain import define_gradients, ready_step
from sparse_models.kernels.cpu import _flow, _team
from sparse_models.kernels.cpu.chain import by_rows, by_tiles
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import RULES
from sparse_models.kernels.link import Link
from sparse_models.kernels.variant import Variant
from sparse_models.layers.tiled import Tiled
from tests.helpers.kernel_checks import BATCHES, Watcher, close, forget_kernels
from tests.sparse_models.kernels.test_blocks import links as blocks
from tests.sparse_models.kernels.test_chain import links
from tests.sparse_models.kernels.test_emit import width
from tests.strategies import seeds, variants

__all__ = ["width"]  # a fixture
pytestmark = pytest.mark.usefixtures("poisoned")
WAYS = {"tiles": partial(by_tiles.ready, both=False), "both": partial(by_tiles.ready, both=True), "rows": by_rows.ready}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda held: torch.optim.Adam(held, lr=0.1, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-3),
    "adamw": lambda held: torch.optim.AdamW(held, lr=0.1, weight_decay=0.3),
    "sgd": lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9, dampening=0.2, weight_decay=0.1),
    "nesterov": lambda held: torch.optim.SGD(held, lr=0.1, momentum=0.9, nesterov=True),
}
BATCH = {"x": torch.randn(70, 20, generator=torch.Generator().manual_seed(5)), "labels": torch.arange(70) % 5}


def held(link: Link) -> list[Tensor | None]:
    return [link.values, link.bias]


class Taken:
    """A step's kernel on a chain, and the optimizer by which it is defined on a copy of the chain."""

    def __init__(self, chain: list[Link], optimizer: str, ready: Any, batch: int, **options: Any) -> None:
        self.chain = chain
        self.defined = [link._replace(values=link.values.clone(), bias=copied(link.bias)) for link in chain]
        its = [tensor for link in self.defined for tensor in held(link) if tensor is not None]
        self.optimizer = OPTIMIZERS[optimizer](its)
        self.rule, self.steps = RULES[type(self.optimizer)], 1
        for tensor in its:  # the first step is PyTorch's, which makes the state
            tensor.grad = torch.randn_like(tensor)
        self.optimizer.step()
        for mine, other in zip(chain, self.defined, strict=True):
            for own, its_own in zip(held(mine), held(other), strict=True):
                if own is not None and its_own is not None:
                    own.copy_(its_own)
        self.own = [
            None if own is None or tensor is None else Parameter(own, self.moments(tensor, clone=True))
            for mine, other in zip(chain, self.defined, strict=True)
            for own, tensor in zip(held(mine), held(other), strict=True)
        ]
        self.ready: Ready = ready(chain, self.own, self.rule, batch, **options)

    def moments(self, tensor: Tensor, *, clone: bool = False) -> tuple[Tensor, ...]:
        found = (self.optimizer.state[tensor][name] for name in self.rule.moments)
        return tuple(moment.clone() if clone else moment for moment in found)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        self.steps += 1
        numbers = self.rule.numbers(self.optimizer.param_groups[0], self.steps)
        return self.ready.step(x, labels, [*numbers] * len(self.own))

    def check(self, x: Tensor, labels: Tensor) -> None:
        found = define_gradients(self.defined, x, labels)
        close(self.step(x, labels), found.loss)
        for link, values, bias in zip(self.defined, found.values, found.biases, strict=True):
            link.values.grad = values
            if link.bias is not None:
                link.bias.grad = bias
        self.optimizer.step()
        its = [tensor for link in self.defined for tensor in held(link)]
        for own, tensor in zip(self.own, its, strict=True):
            if own is not None and tensor is not None:
                for mine, other in zip([own.values, *own.moments], [tensor, *self.moments(tensor)], strict=True):
                    close(mine, other)


def copied(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.clone()


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=10)
@given(
    seeds,
    st.sampled_from([(1, 1), (6, 30, 5), (30, 1, 7, 2), (20, 33, 5)]),
    st.sampled_from(BATCHES),
    st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    st.sampled_from(sorted(OPTIMIZERS)),
    st.booleans(),
)
def test_a_step_is_its_definition(
    way: str, seed: int, sizes: tuple[int, ...], batch: int, density: float, optimizer: str, with_bias: bool
) -> None:
    numbers = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sizes[0], generator=numbers, dtype=torch.float64)
    labels = torch.randint(sizes[-1], (batch,), generator=numbers)
    taken = Taken(links(seed, sizes, density, torch.float64, with_bias=with_bias), optimizer, WAYS[way], batch)
    for _ in range(3):
        taken.check(x, labels)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=6)
@given(st.sampled_from([1, 70, 300]), st.sampled_from(["adam", "sgd"]), variants)
def test_a_step_in_every_variant_is_its_definition(way: str, batch: int, optimizer: str, variant: Variant) -> None:
    x, labels = torch.randn(batch, 20, dtype=torch.float64), torch.arange(batch) % 5
    chain = links(0, (20, 33, 5), 0.3, torch.float64, with_bias=True)
    Taken(chain, optimizer, WAYS[way], batch, variant=variant).check(x, labels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_its_definition_at_every_width(width: Any, way: str, dtype: torch.dtype) -> None:
    taken = Taken(links(0, (20, 33, 5), 0.3, dtype, with_bias=True), "adamw", WAYS[way], 70)
    taken.check(BATCH["x"].to(dtype), BATCH["labels"])


@pytest.mark.parametrize("cache_bytes", [0, 2**15, 3 * 2**14])
def test_a_step_is_its_definition_whatever_the_first_cache(monkeypatch: pytest.MonkeyPatch, cache_bytes: int) -> None:
    monkeypatch.setattr(by_tiles, "first_cache", lambda: cache_bytes)
    x, labels = torch.randn(300, 400, dtype=torch.float64), torch.arange(300) % 5
    taken = Taken(links(0, (400, 40, 5), 0.3, torch.float64, with_bias=True), "adam", by_tiles.ready, 300)
    taken.check(x, labels)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_follows_indices_that_change_where_they_lie(way: str) -> None:
    chain = links(0, (20, 33, 5), 0.3, torch.float64, with_bias=True)
    taken = Taken(chain, "adam", WAYS[way], 70)
    taken.check(BATCH["x"].double(), BATCH["labels"])
    for link in chain:
        moved = Tiled(torch.zeros(link.rows.rows, link.rows.columns), link.rows.dense(link.values).flip(0) != 0).link()
        pairs = [(mine, other) for pair in zip(link[:2], moved[:2], strict=True) for mine, other in zip(*pair, strict=True)]
        for mine, other in [*pairs, (link.transposition, moved.transposition)]:
            if isinstance(mine, Tensor) and isinstance(other, Tensor):
                mine.copy_(other)
    taken.check(BATCH["x"].double(), BATCH["labels"])


def test_both_gradients_come_of_transposes_that_are_wider_than_a_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by_tiles, "first_cache", lambda: 2**15)
    chain = links(0, (20, 40, 300), 0.5, torch.float64, with_bias=True)
    Taken(chain, "adam", WAYS["both"], 70).check(BATCH["x"].double(), BATCH["labels"])


@pytest.mark.parametrize("sizes", [(20, 32, 8), (20, 33, 5)])  # of blocks that fit, and that stand over the edge
def test_a_step_of_blocks_is_its_definition(sizes: tuple[int, ...]) -> None:
    for optimizer in ("adam", "sgd"):
        for way in (ready_step, WAYS["both"]):  # blocks have no both
            Taken(blocks((4, 4), sizes, torch.float64), optimizer, way, 70).check(BATCH["x"].double(), BATCH["labels"])


CHAINS = {
    "non-zeros": lambda: links(0, (4, 5, 3), 0.5, torch.float32, with_bias=True),
    "blocks": lambda: blocks((3, 5), (4, 5, 3), torch.float32),
    "blocks over the edge": lambda: blocks((4, 4), (4, 5, 3), torch.float32),
}


@pytest.mark.parametrize("batch", [1, 70, 300])
@pytest.mark.parametrize(
    ("way", "chain"), [*((way, "non-zeros") for way in WAYS), ("tiles", "blocks"), ("tiles", "blocks over the edge")]
)
def test_a_step_touches_what_is_its_own(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch, way: str, chain: str, batch: int
) -> None:
    taken = Taken(CHAINS[chain](), "adam", WAYS[way], batch)
    x, labels = torch.randn(batch, 4), torch.arange(batch) % 3
    tensors = [tensor for tensor in taken.ready.held if isinstance(tensor, Tensor)]
    tensors += [tensor for own in taken.own if own is not None for tensor in (own.values, *own.moments)]

    def run_on(function: int, arguments: Any, team: int) -> None:
        loss = arguments[taken.ready.loss_place]
        watcher.may = [(one.data_ptr(), one.data_ptr() + one.nbytes) for one in (*tensors, x, labels)] + [(loss, loss + 4)]
        _team.run_on(function, arguments, team)

    monkeypatch.setattr("sparse_models.kernels.cpu.chain._ready.run_on", run_on)
    taken.step(x, labels)
    assert watcher.written
    assert not watcher.outside
    assert not watcher.contested


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_a_step_gives_the_same_bits_on_a_number_of_threads(threads: int, way: str) -> None:
    torch.set_num_threads(threads)
    found = []
    for _ in range(5):
        taken = Taken(links(0, (20, 33, 5), 0.3, torch.float32, with_bias=True), "adam", WAYS[way], 70)
        taken.own[0].moments[0].zero_()  # type: ignore[union-attr]  # what PyTorch began with was drawn at random
        for parameter in taken.own:
            assert parameter is not None
            for tensor in (parameter.values, *parameter.moments):
                tensor.fill_(0.01)
        losses = [taken.step(BATCH["x"], BATCH["labels"]) for _ in range(3)]
        found.append([*losses, *(own.values for own in taken.own if own is not None)])
    assert all(torch.equal(*pair) for other in found[1:] for pair in zip(found[0], other, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_step_is_taken_whole_by_fewer_threads_than_it_was_made_for(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    torch.set_num_threads(3)
    taken = Taken(links(0, (20, 33, 5), 0.3, torch.float64, with_bias=True), "adam", WAYS[way], 300)
    alone = partial(_team.run_on, team=1)
    monkeypatch.setattr(
        "sparse_models.kernels.cpu.chain._ready.run_on", lambda function, arguments, _: alone(function, arguments)
    )
    taken.check(torch.randn(300, 20, dtype=torch.float64), torch.arange(300) % 5)


@pytest.mark.parametrize("way", WAYS)
def test_a_step_needs_no_team(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(_flow, "barrier_address", lambda: 0)
    monkeypatch.setattr(_team, "_runtime", lambda: None)
    forget_kernels()
    Taken(links(0, (20, 33, 5), 0.3, torch.float32, with_bias=True), "adam", WAYS[way], 70).check(**BATCH)
    forget_kernels()


def test_every_optimizer_that_a_kernel_knows_is_checked() -> None:
    optimizers = [build([torch.nn.Parameter(torch.zeros(1))]) for build in OPTIMIZERS.values()]
    assert {type(optimizer) for optimizer in optimizers} == set(RULES)
    for optimizer in optimizers:
        rule, [group] = RULES[type(optimizer)], optimizer.param_groups
        assert rule.knows(group)
        assert len(rule.numbers(group, 1)) == rule.width
