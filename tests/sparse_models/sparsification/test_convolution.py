import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.sparsification import SparseConv2d
from tests.strategies import mask_for, normal, seeds

pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@st.composite
def convolutions(draw: st.DrawFn) -> nn.Conv2d:
    torch.manual_seed(draw(seeds))
    same = draw(st.booleans())
    return nn.Conv2d(
        draw(st.integers(1, 4)),
        draw(st.integers(1, 4)),
        (draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 3]))) if same else draw(pairs),
        stride=1 if same else draw(pairs),
        padding="same" if same else draw(st.tuples(st.integers(0, 2), st.integers(0, 2))),
        dilation=draw(pairs),
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )


@pytest.mark.parametrize("layer", ["tiled", "masked", "block4"])
@settings(max_examples=10)
@given(convolutions(), st.lists(st.integers(1, 3), max_size=1), st.integers(7, 9), st.integers(7, 9), seeds)
def test_a_sparse_convolution_is_the_masked_one(
    layer: str, conv: nn.Conv2d, batch: list[int], height: int, width: int, seed: int
) -> None:
    flat = mask_for(layer, conv.weight.flatten(1).shape, 0.5, seed)
    mask = flat.view(conv.weight.shape)
    sparse = SparseConv2d.from_conv(LAYERS[layer], conv, mask)
    with torch.no_grad():
        conv.weight *= mask
    x = normal(seed, *batch, conv.in_channels, height, width).requires_grad_()
    y = x.detach().clone().requires_grad_()
    expected, found = conv(x), sparse(y)
    torch.testing.assert_close(found, expected)
    assert found.is_contiguous()
    expected.square().sum().backward()
    found.square().sum().backward()
    torch.testing.assert_close(y.grad, x.grad)
    assert (conv.weight.grad, sparse.linear.values.grad) != (None, None)
    torch.testing.assert_close(
        sparse.linear.unpack(sparse.linear.values.grad), (conv.weight.grad * mask).flatten(1)  # type: ignore[arg-type,operator]
    )  # fmt: skip
    back = sparse.to_conv()
    assert torch.equal(back.weight, conv.weight)
    torch.testing.assert_close(back(x), expected)


@pytest.mark.parametrize(
    ("conv", "said"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "expected a convolution of one group padded with zeros, got groups=2"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "padding_mode='reflect'; leave it dense"),
        (nn.Conv2d(4, 4, 2, padding="same"), "expected as much padding before as after"),
    ],
)
def test_what_is_no_product_over_patches_is_refused(conv: nn.Conv2d, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SparseConv2d.from_conv(LAYERS["tiled"], conv)


@pytest.mark.parametrize("shape", [(1, 3, 5, 5), (4, 5), (1, 4, 1, 5)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="expected an input "):
        SparseConv2d.from_conv(LAYERS["tiled"], nn.Conv2d(4, 2, 3))(torch.ones(shape))


def test_no_samples_are_no_outputs() -> None:
    assert SparseConv2d.from_conv(LAYERS["tiled"], nn.Conv2d(4, 2, 3))(torch.ones(0, 4, 5, 6)).shape == (0, 2, 3, 4)
