"""What a public function cannot take is refused in one sentence: what was expected, what came, and what to do."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse_models import (
    LAYERS,
    MLP,
    UPDATES,
    GradualPruner,
    Settings,
    SparseConv2d,
    count_kept,
    dense_gradients,
    dense_mlp,
    densify,
    draw,
    evaluate,
    magnitude_mask,
    narrow_mlp,
    random_mask,
    register_update,
    sparse_layers,
    sparse_mlp,
    sparsify,
    train,
    update_masks,
)
from sparse_models.data import Split
from sparse_models.errors import InputError, checked, fits
from sparse_models.masks import block, n_of_m, top_k_mask
from sparse_models.updates import move_mask
from tests.helpers.damaged import is_sentence

WEIGHT = torch.ones(4, 4)
DRAWN = [(WEIGHT, torch.zeros(4)), (WEIGHT, torch.zeros(4))]
DATA = Split(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
OTHERS: list[Any] = [np.ones((4, 4)), [object()], "x", 2.5, object(), nn.ReLU(), int, torch.ones(3, 3, 3)]


def layer() -> Any:
    return LAYERS["tiled"](WEIGHT, WEIGHT != 0)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4))


def made_of(function: Callable[..., object], **usual: Callable[[], object]) -> Callable[..., object]:
    """Return a function that makes what another is usually given anew, unless it is given something else."""
    return lambda **given: function(**{name: make() for name, make in usual.items()} | given)


def trained(**given: Any) -> object:
    usual = {"model": sparse_mlp(DRAWN, "tiled", 0.5), "data": DATA, "settings": Settings(1, 4, 0.1), "seed": 0}
    function: Callable[..., Any] = train
    return list(function(**usual | given))


def watched(layers: Any) -> object:
    with dense_gradients(layers) as found:
        return found


ACCEPTED: dict[str, type] = {
    "checkpoint": str,
    "weight": Tensor,
    "model": nn.Module,
    "dtype": type,
}  # or refused for what it does
# Functions with the arguments that are to be of a type that none of OTHERS is; what else they need is given.
ENTRIES: dict[str, tuple[Callable[..., object], Sequence[str], Mapping[str, Any]]] = {
    "a layer": (LAYERS["tiled"], ("weight", "mask", "bias"), {"weight": WEIGHT, "mask": WEIGHT != 0}),
    "from_linear": (LAYERS["tiled"].from_linear, ("linear",), {}),
    "from_conv": (SparseConv2d.from_conv, ("layer", "conv"), {"layer": LAYERS["tiled"], "conv": nn.Conv2d(1, 1, 1)}),
    "sparsify": (
        made_of(sparsify, model=net),
        ("model", "masks", "optimizer", "distribution", "by", "layer"),
        {"sparsity": 0.5},
    ),
    "densify": (densify, ("model",), {}),
    "sparse_layers": (sparse_layers, ("model",), {}),
    "GradualPruner": (
        made_of(GradualPruner, model=lambda: sparsify(net(), sparsity=0.0)),
        ("model", "optimizer", "distribution", "by"),
        {"sparsity": 0.5, "end": 1},
    ),
    "magnitude_mask": (magnitude_mask, ("weight",), {"sparsity": 0.5}),
    "random_mask": (random_mask, ("shape", "generator"), {"shape": (4, 4), "sparsity": 0.5}),
    "draw": (draw, ("sizes", "generator", "dtype"), {"sizes": (4, 4)}),
    "dense_mlp": (dense_mlp, ("drawn",), {}),
    "narrow_mlp": (narrow_mlp, ("drawn",), {"nnz": 4}),
    "sparse_mlp": (sparse_mlp, ("drawn", "layer", "distribution"), {"drawn": DRAWN, "layer": "tiled", "sparsity": 0.5}),
    "train": (trained, ("model", "data", "settings", "update", "checkpoint"), {}),
    "evaluate": (evaluate, ("model", "data"), {"model": net(), "data": DATA}),
    "update_masks": (
        update_masks,
        ("layers", "update", "optimizer"),
        {"layers": [layer()], "update": UPDATES["set"], "drop_fraction": 0.5},
    ),
    "MLP": (MLP, ("layers",), {}),
    "dense_gradients": (watched, ("layers",), {}),
    "move_mask": (move_mask, ("layer", "mask", "optimizer"), {"layer": layer(), "mask": WEIGHT != 0}),
    "register_update": (register_update, ("update",), {}),
}


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("other", OTHERS, ids=lambda one: type(one).__name__)
@pytest.mark.filterwarnings("ignore:left dense")
def test_an_argument_of_another_type_is_refused_in_a_sentence(name: str, other: Any) -> None:
    function, arguments, given = ENTRIES[name]
    for argument in arguments:
        if isinstance(other, ACCEPTED.get(argument, ())):
            continue
        with pytest.raises(InputError) as caught:
            function(**{**given, argument: other})
        assert is_sentence(str(caught.value)), (argument, str(caught.value))


@pytest.mark.parametrize("sparsity", [True, None, "many", math.nan, -0.1, [0.5], np.ones(2), torch.ones(2)])
def test_what_is_no_fraction_is_no_sparsity(sparsity: Any) -> None:
    for function in (
        lambda: count_kept(4, sparsity),
        lambda: magnitude_mask(WEIGHT, sparsity),
        lambda: random_mask((4, 4), sparsity),
        lambda: sparse_mlp(DRAWN, "tiled", sparsity),
        lambda: GradualPruner(sparsify(net(), sparsity=0.0), sparsity=sparsity, end=1),
    ):
        with pytest.raises(InputError):
            function()
    if sparsity is not None:  # without one, layers with masks alone are exchanged
        with pytest.raises(InputError, match="expected a sparsity"):
            sparsify(net(), sparsity=sparsity)


@pytest.mark.parametrize("field", ["epochs", "batch", "update_interval", "learning_rate", "optimizer"])
@pytest.mark.parametrize("other", [None, "x", [1], math.nan, -1, True])
def test_settings_that_no_training_can_use_are_refused(field: str, other: Any) -> None:
    with pytest.raises(InputError):
        trained(settings=Settings(1, 4, 0.1)._replace(**{field: other}))


def test_masks_as_a_list_are_told_to_be_a_mapping() -> None:
    with pytest.raises(InputError, match=r"sparsify: expected masks to be .*Mapping.* or None, got list; convert it"):
        sparsify(net(), masks=[WEIGHT != 0])  # type: ignore[arg-type]


def test_what_works_is_never_refused_and_what_fails_for_another_reason_says_so_itself() -> None:
    @checked
    def halved(number: int) -> float:
        return number / 2

    @checked
    def failing(number: int) -> float:
        raise OSError("a disk")

    assert halved(3.0) == 1.5  # type: ignore[arg-type]
    with pytest.raises(InputError, match="halved: expected number to be int, got 'x'; pass one") as caught:
        halved("x")  # type: ignore[arg-type]
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(OSError, match="a disk"):
        failing(1)
    with pytest.raises(TypeError, match="missing 1 required"):
        halved()  # type: ignore[call-arg]


def test_types_are_told_apart_as_far_as_they_can_be_looked_at() -> None:
    good: list[tuple[Any, Any]] = [
        (1, float), (np.float32(1), float), ("a", str | None), (None, str | None), ([1, 2], Sequence[int]),
        ({}, Mapping[str, int]), (int, type[int]), ((1, "a"), tuple[int, str]), ((1, 2, 3), tuple[int, ...]),
        (len, Callable[..., int]),
    ]  # fmt: skip
    bad: list[tuple[Any, Any]] = [
        (True, int), ("1", int), (1, str | None), ("ab", Sequence[str]), (["a"], Sequence[int]),
        ({1: 1}, Mapping[str, int]),
        (str, type[int]), ((1,), tuple[int, str]), (WEIGHT, Sequence[Tensor]), (1, Callable[..., int]),
    ]  # fmt: skip
    assert [fits(*one) for one in good] == [True] * len(good)
    assert [fits(*one) for one in bad] == [False] * len(bad)


@pytest.mark.parametrize("score", [WEIGHT != 0, WEIGHT.to(torch.complex64), WEIGHT.to("meta"), WEIGHT.to_sparse()])
def test_what_is_no_real_number_is_no_score(score: Tensor) -> None:
    with pytest.raises(InputError, match="expected scores that are real numbers in strides"):
        top_k_mask(score, 1)


@pytest.mark.parametrize("among", [WEIGHT, torch.ones(4, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool)])
def test_scores_are_chosen_among_those_of_a_bool_mask_of_their_shape(among: Tensor) -> None:
    with pytest.raises(InputError, match="expected a bool mask of shape"):
        top_k_mask(WEIGHT, 1, among)


@pytest.mark.parametrize("size", ["2", 1.5, None, True])
def test_sizes_of_patterns_are_whole(size: Any) -> None:
    for pattern, sizes in ((block, (size, 2)), (block, (2, size)), (n_of_m, (size, 4)), (n_of_m, (1, size))):
        with pytest.raises(InputError):
            pattern(*sizes)
