"""What a layer cannot be built from, or be given, is refused in one sentence."""

import math

import pytest
import torch

from sparse_models.errors import InputError
from sparse_models.models import draw, sparse_mlp
from sparse_models.registry import LAYERS
from tests.strategies import mask_for


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_of_another_shape_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bool mask of shape \[2, 3\].* got torch.bool of shape \[3, 2\]"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(3, 2, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mask_that_is_not_bool_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bool mask .* got torch.float32"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(2, 3))


@pytest.mark.parametrize("layer", LAYERS)
def test_nan_weights_are_refused(layer: str) -> None:
    with pytest.raises(InputError, match="expected weights without NaN, got NaN; "):
        LAYERS[layer](torch.full((2, 3), math.nan), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (3,), (1, 2, 3)])
def test_a_weight_that_is_no_matrix_is_refused(layer: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"expected a weight of shape \[out, in\], both at least 1, got "):
        LAYERS[layer](torch.ones(shape), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_bias_of_another_length_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match=r"expected a bias of shape \[2\], torch.float32 on cpu, got \[3\]"):
        LAYERS[layer](torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool), torch.ones(3))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_dtype_the_layer_does_not_run_is_refused(layer: str) -> None:
    with pytest.raises(InputError, match="got int64 on cpu; convert the weight"):
        LAYERS[layer](torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(4, 2), (2,), (1, 3, 2), ()])
def test_an_input_of_another_shape_is_refused(layer: str, shape: tuple[int, ...]) -> None:
    built = LAYERS[layer](torch.ones(2, 3), mask_for(layer, (2, 3), 0.0))
    with pytest.raises(InputError, match=r"expected an input of shape \[..., 3\], got "):
        built(torch.ones(shape))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("grad", [True, False])
def test_an_input_of_another_dtype_is_refused_in_one_sentence(grad: bool) -> None:
    layer = next(iter(sparse_mlp(draw((6, 4)), "tiled", 0.5)))
    with (
        torch.set_grad_enabled(grad),
        pytest.raises(InputError, match=r"Tiled: expected an input of float32 or float64 .*cpu"),
    ):
        layer(torch.randn(3, 6))


def test_a_full_layer_refuses_a_sparse_mask() -> None:
    with pytest.raises(InputError, match="expected a mask of pattern 'full'"):
        LAYERS["dense"](torch.ones(1, 2), torch.tensor([[True, False]]))
