import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.costs import size
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import UNSTRUCTURED, count_kept
from sparse_models.models import MLP, convert, dense_mlp, draw, narrow_mlp, narrow_sizes, sparse_mlp
from tests.strategies import SPARSE_LAYERS, drawn, generator, mlp_of, normal, seeds, sparsities

chains = st.lists(st.integers(1, 30), min_size=2, max_size=5)


@given(chains, seeds)
def test_drawn_weights_follow_the_rule_of_nn_linear(sizes: list[int], seed: int) -> None:
    for (weight, bias), (inputs, outputs) in zip(draw(sizes, generator(seed)), pairwise(sizes), strict=True):
        assert (tuple(weight.shape), tuple(bias.shape)) == ((outputs, inputs), (outputs,))
        assert max(weight.abs().max(), bias.abs().max()) <= 1 / math.sqrt(inputs)


def test_drawn_weights_spread_as_those_of_nn_linear_do() -> None:
    [(weight, bias)] = draw((400, 300), generator(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reference = torch.nn.Linear(400, 300).weight.detach()
    assert float(weight.std()) == pytest.approx(float(reference.std()), rel=0.02)
    assert float(bias.std()) == pytest.approx(1 / math.sqrt(3 * 400), rel=0.1)


@pytest.mark.parametrize("layer", SPARSE_LAYERS)
@given(chains, seeds, sparsities)
def test_every_arm_starts_from_the_same_drawn_weights(layer: str, sizes: list[int], seed: int, sparsity: float) -> None:
    weights = drawn(layer, sizes, seed)
    for part, (weight, bias) in zip(mlp_of(layer, weights, sparsity, seed), weights, strict=True):
        assert torch.equal(part.to_dense(), weight * part.mask)
        assert part.bias is not None
        assert torch.equal(part.bias, bias)
        if LAYERS[layer].pattern is UNSTRUCTURED:
            assert part.nnz == count_kept(weight.numel(), sparsity)


@given(chains, seeds, sparsities)
def test_scaled_weights_are_divided_by_the_root_of_the_layers_density(sizes: list[int], seed: int, sparsity: float) -> None:
    drawn = draw(sizes, generator(seed))
    plain, scaled = (sparse_mlp(drawn, "masked", sparsity, generator(seed), scaled=flag) for flag in (False, True))
    for one, other in zip(plain, scaled, strict=True):
        assert torch.equal(one.mask, other.mask)
        density = one.nnz / one.mask.numel()
        torch.testing.assert_close(other.to_dense() * math.sqrt(density), one.to_dense())
        assert one.bias is not None
        assert other.bias is not None
        assert torch.equal(one.bias, other.bias)


def test_scaling_keeps_the_variance_of_the_output() -> None:
    drawn = draw((500, 400), generator(0))
    x = normal(0, 200, 500)
    dense, sparse = dense_mlp(drawn), sparse_mlp(drawn, "masked", 0.9, generator(1), scaled=True)
    with torch.no_grad():
        assert float(sparse(x).std()) == pytest.approx(float(dense(x).std()), rel=0.1)


@given(chains, st.integers(0, 3000))
def test_narrow_has_the_most_weights_that_do_not_exceed_the_non_zeros(sizes: list[int], nnz: int) -> None:
    def weights(chain: tuple[int, ...]) -> int:
        return sum(a * b for a, b in pairwise(chain))

    narrow = narrow_sizes(sizes, nnz)
    smallest = (sizes[0], *[1] * (len(sizes) - 2), sizes[-1])
    assert (narrow[0], narrow[-1], len(narrow)) == (sizes[0], sizes[-1], len(sizes))
    assert all(1 <= own <= full for own, full in zip(narrow, sizes, strict=True))
    if weights(smallest) <= nnz:
        assert weights(narrow) <= nnz
    else:
        assert narrow == smallest
    if narrow != tuple(sizes) and len(sizes) > 2:
        # One notch wider, at the next factor where a hidden size grows, is too many.
        factor = min((own + 1) / full for own, full in zip(narrow[1:-1], sizes[1:-1], strict=True) if own < full)
        wider = (
            sizes[0],
            *(max(own, int(full * factor + 1e-9)) for own, full in zip(narrow[1:-1], sizes[1:-1], strict=True)),
            sizes[-1],
        )
        assert weights(wider) > nnz


def test_narrow_of_the_digits_model_at_sparsity_80_is_98_wide() -> None:
    assert narrow_sizes((64, 256, 256, 10), round(84480 * 0.2)) == (64, 98, 98, 10)


@given(chains, seeds, st.integers(1, 3000))
def test_narrow_starts_from_the_leading_part_of_the_drawn_weights(sizes: list[int], seed: int, nnz: int) -> None:
    drawn = draw(sizes, generator(seed))
    for part, (weight, _) in zip(narrow_mlp(drawn, nnz), drawn, strict=True):
        scale = math.sqrt(weight.shape[1] / part.in_features)
        torch.testing.assert_close(part.to_dense(), weight[: part.out_features, : part.in_features] * scale)


@given(chains, seeds)
def test_mlp_is_its_layers_with_relu_between(sizes: list[int], seed: int) -> None:
    drawn = draw(sizes, generator(seed))
    x = normal(seed, 4, sizes[0])
    expected = x
    for number, (weight, bias) in enumerate(drawn):
        expected = expected @ weight.t() + bias
        expected = expected.clamp(min=0) if number < len(drawn) - 1 else expected
    torch.testing.assert_close(dense_mlp(drawn)(x), expected)


@given(seeds, sparsities, st.sampled_from(["uniform", "er", "erk"]))
def test_distribution_meets_the_sparsity_of_the_whole_model(seed: int, sparsity: float, distribution: str) -> None:
    drawn = draw((20, 30, 8), generator(seed))
    total = size(sparse_mlp(drawn, "csr", sparsity, generator(seed), distribution=distribution))
    assert abs(total.nnz - (1 - sparsity) * total.weights) <= 2


@pytest.mark.parametrize("sizes", [[5], [], [5, 0], [-1, 5]])
def test_sizes_that_make_no_network_are_refused(sizes: list[int]) -> None:
    with pytest.raises(InputError, match="expected at least two layer sizes"):
        draw(sizes)


def test_an_unknown_layer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"expected a known layer \(.*csr.*\), got 'cssr'; did you mean csr"):
        sparse_mlp(draw((2, 2)), "cssr", 0.5)


def test_an_unknown_distribution_is_refused() -> None:
    with pytest.raises(InputError, match="expected a known distribution"):
        sparse_mlp(draw((2, 2)), "csr", 0.5, distribution="even")


def test_convert_changes_the_dtype() -> None:
    model = dense_mlp(convert(draw((3, 2), generator(0)), dtype=torch.float32))
    assert isinstance(model, MLP)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
