"""What runs on a GPU without making the host wait, seen on a CPU: tensors pass for those of a GPU, and waiting is refused."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.layers._feature_major.both_ways import CsrBothWays
from sparse_models.layers._feature_major.csr_storage import CsrStorage, compress, compress_known
from sparse_models.masks import UNSTRUCTURED, random_mask
from sparse_models.models import MLP, convert, dense_mlp, draw
from sparse_models.training import optimizer_for, training_step
from sparse_models.updates import UPDATES, move_mask, prune_and_regrow, update_masks
from tests.helpers.gpu.simulated_gpu import HostSyncError, no_host_sync, pretend_gpu
from tests.strategies import (
    MOVING_LAYERS,
    MOVING_RULES,
    SPARSE_LAYERS,
    coarse,
    drawn,
    fractions,
    generator,
    mask_for,
    masks,
    mlp_of,
    normal,
    seeds,
)

# Those of a GPU, and those whose storage does the same on whatever device: of single weights.
ON_GPU = sorted(
    name
    for name, layer in LAYERS.items()
    if name in MOVING_LAYERS and ("cuda" in layer.devices or (issubclass(layer, CsrBothWays) and layer.pattern.unit == (1, 1)))
)
CONSERVING = [rule for rule in MOVING_RULES if UPDATES[rule].conserves]  # of the others, numbers are asked for


def sizes(layer: str) -> tuple[int, int, int]:
    """Sizes of a small MLP whose weights consist of whole units."""
    unit = max(LAYERS[layer].pattern.unit)
    return 6 * unit, 7 * unit, 4 * unit


def batch_for(layer: str, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Eight samples and their labels."""
    features, _, classes = sizes(layer)
    return normal(seed, 8, features, dtype=dtype), torch.randint(classes, (8,), generator=generator(seed))


def trained(layer: str, seed: int) -> tuple[MLP, torch.optim.Optimizer]:
    """A small model with optimizer state, whose gradients are still there."""
    model = mlp_of(layer, drawn(layer, sizes(layer), seed), 0.6, seed)
    optimizer = optimizer_for("adam", model.parameters(), 0.1)
    training_step(model, *batch_for(layer, seed, next(model.parameters()).dtype), optimizer)
    return model, optimizer


def memory(model: MLP, optimizer: torch.optim.Optimizer) -> list[int]:
    """Where everything lies that a captured step reads or writes."""
    state = [optimizer.state[part.values][name] for part in model for name in ("exp_avg", "exp_avg_sq")]
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers(), *state)]


def contents(model: MLP, optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for part in model:
        yield from (part.mask, part.to_dense(), *part.buffers())
        yield from (part.unpack(optimizer.state[part.values][name]) for name in ("exp_avg", "exp_avg_sq"))


def updated(model: MLP, optimizer: torch.optim.Optimizer, rule: str, seed: int, *, in_place: bool = False) -> None:
    grads = {part: normal(seed, part.out_features, part.in_features, dtype=part.values.dtype) for part in model}
    choice = generator(seed)
    update_masks(model, UPDATES[rule], 0.4, optimizer=optimizer, gradients=grads, generator=choice, in_place=in_place)


@pytest.mark.parametrize("rule", CONSERVING)
@pytest.mark.parametrize("layer", ON_GPU)
@settings(max_examples=12)
@given(seeds, st.booleans())
def test_an_update_on_a_gpu_does_what_one_on_a_cpu_does(layer: str, rule: str, seed: int, captured: bool) -> None:
    (host, host_state), (card, card_state) = (trained(layer, seed) for _ in range(2))
    updated(host, host_state, rule, seed)
    with pytest.MonkeyPatch.context() as patch:
        pretend_gpu(patch, captured=captured)
        updated(card, card_state, rule, seed)
    for own, other in zip(contents(host, host_state), contents(card, card_state), strict=True):
        assert own.dtype == other.dtype
        assert torch.equal(own, other)


@pytest.mark.parametrize("rule", CONSERVING)
@pytest.mark.parametrize("layer", ON_GPU)
def test_a_captured_update_asks_the_device_nothing_and_leaves_everything_in_its_place(
    layer: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = trained(layer, 0)
    updated(model, optimizer, rule, 1)  # outside of the graph, as PyTorch asks for
    training_step(model, *batch_for(layer, 0, next(model.parameters()).dtype), optimizer)
    before, old = memory(model, optimizer), [part.mask for part in model]
    pretend_gpu(monkeypatch, captured=True)
    with no_host_sync() as seen:
        updated(model, optimizer, rule, 2)
    assert memory(model, optimizer) == before
    assert any(not torch.equal(part.mask, mask) for part, mask in zip(model, old, strict=True))
    for part in model:
        assert part.values.grad is not None
        assert not part.values.grad.any()
    # To choose within rows takes a few sorts, and scores of blocks are summed, and spread over their weights.
    pattern = LAYERS[layer].pattern
    each = 90 if pattern.group is not None else 80 if pattern.unit != (1, 1) else 70
    assert seen.launches.total() < each * len(list(model))


@pytest.mark.parametrize("rule", CONSERVING)
@pytest.mark.parametrize("layer", [name for name in ON_GPU if LAYERS[name].pattern is UNSTRUCTURED])  # others are checked
def test_an_eager_update_asks_only_whether_there_are_nan(layer: str, rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = trained(layer, 0)
    updated(model, optimizer, rule, 1)
    pretend_gpu(monkeypatch, captured=False)
    asked: list[Tensor] = []
    monkeypatch.setattr("sparse_models.masks.regrow.refuse_nan", asked.append)
    with no_host_sync():
        updated(model, optimizer, rule, 2)
    assert len(asked) == len(list(model))


@pytest.mark.parametrize("layer", ["dense", *ON_GPU])
def test_a_training_step_asks_the_device_nothing(layer: str) -> None:
    weights = convert(draw(sizes(layer), generator(0)))
    model = dense_mlp(weights) if layer == "dense" else mlp_of(layer, weights, 0.6)
    optimizer = optimizer_for("adam", model.parameters(), 0.1)
    x, labels = batch_for(layer, 0, torch.float32)
    training_step(model, x, labels, optimizer, fused=False)
    with no_host_sync():
        training_step(model, x, labels, optimizer, fused=False)


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: int(x.sum()),
        lambda x: bool(x.any()),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x.masked_select(x > 0),
        lambda x: torch.equal(x, x),
        lambda x: x.unique(),
        lambda x: torch.repeat_interleave(x, torch.arange(4)),
        lambda x: torch.where(x > 0, x, 1.0),
        lambda x: x.clone().__setitem__(x > 0, x[0]),
    ],
)
def test_what_makes_the_host_wait_is_seen(asks: Callable[[Tensor], object]) -> None:
    x = torch.ones(4)
    with pytest.raises(HostSyncError), no_host_sync():
        asks(x)


@given(masks(), seeds, fractions, st.booleans(), st.booleans())
def test_masks_are_chosen_alike_on_both_devices(
    mask: Tensor, seed: int, fraction: float, tied: bool, regrow_dropped: bool
) -> None:
    numbers = coarse if tied else normal
    keep, grow = (numbers(seed + number, *mask.shape) for number in range(2))
    keep.view(-1)[0] = -torch.inf  # which must not tie with what is left out
    host = prune_and_regrow(mask, keep, grow, fraction, regrow_dropped=regrow_dropped)
    with pytest.MonkeyPatch.context() as patch:
        pretend_gpu(patch, captured=True)
        card = prune_and_regrow(mask, keep, grow, fraction, regrow_dropped=regrow_dropped, kept=int(mask.sum()))
    assert int(card.sum()) == int(mask.sum())
    assert tied or torch.equal(card, host)


@given(masks())
def test_the_structure_of_a_mask_of_known_number_is_that_of_any(mask: Tensor) -> None:
    for turned in (mask, mask.t()):
        for own, other in zip(compress_known(turned, int(mask.sum())), compress(turned), strict=True):
            assert (own.dtype, own.tolist(), own.is_contiguous()) == (other.dtype, other.tolist(), True)


@pytest.mark.parametrize("captured", [False, True])
def test_nan_is_refused_on_a_gpu_but_while_a_graph_is_captured(captured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([[True, False, True, False]])
    score = torch.tensor([[torch.nan, 1.0, 2.0, 3.0]])
    pretend_gpu(monkeypatch, captured=captured)
    if captured:
        assert prune_and_regrow(mask, score, score, 0.5, kept=2).tolist() == [[True, False, False, True]]
    else:
        with pytest.raises(InputError, match="without NaN"):
            prune_and_regrow(mask, score, score, 0.5, kept=2)


@pytest.mark.parametrize("layer", ON_GPU)
def test_a_move_in_place_is_refused_for_another_number_and_to_an_older_graph(layer: str) -> None:
    model, optimizer = trained(layer, 0)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    part = next(iter(model))
    other = mask_for(layer, sizes(layer)[1::-1], 0.9)
    if part.pattern.sparsities is None:  # else there is one number alone
        numbers = f"a mask of {part.nnz} weights to move to in place, got one of {int(other.sum())}"
        with pytest.raises(InputError, match=numbers):
            move_mask(part, other, optimizer, in_place=True)
    before = memory(model, optimizer)
    loss = model(batch_for(layer, 0, part.values.dtype)[0]).sum()
    updated(model, optimizer, "set", 1, in_place=True)
    updated(twin, twin_optimizer, "set", 1)
    assert memory(model, optimizer) == before
    for own, other in zip(contents(model, optimizer), contents(twin, twin_optimizer), strict=True):
        assert torch.equal(own, other)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
def test_the_number_as_set_follows_the_mask(layer: str) -> None:
    model, _ = trained(layer, 0)
    part = next(iter(model))
    assert part.nnz_as_set == part.nnz
    for sparsity in (0.2, 0.9):
        part.set_mask(mask_for(layer, sizes(layer)[1::-1], sparsity))
        assert part.nnz_as_set == part.nnz
    part.load_state_dict(next(iter(trained(layer, 1)[0])).state_dict())
    assert part.nnz_as_set == part.nnz
    if isinstance(part, CsrStorage):
        assert part.nnz_as_set == part.values.numel()


@pytest.mark.parametrize("layer", ["csr", "masked"])
def test_moments_of_another_dtype_follow_their_mask(layer: str) -> None:
    part = next(iter(trained(layer, 0)[0]))
    moments = [torch.rand_like(part.values, dtype=dtype) + 1 for dtype in (torch.float64, torch.float32)]
    dense = [part.unpack(moment) for moment in moments]
    mask = random_mask((7, 6), 0.6, generator(5))
    moved = part.move(mask, moments)
    for whole, moment, own in zip(dense, moved, moments, strict=True):
        assert torch.equal(part.unpack(moment), whole * mask)
        assert moment.dtype == own.dtype or layer == "masked"
