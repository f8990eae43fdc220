import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.works.trained.thresholds import Thresholded, one_by_one, thresholds_for, zeros_of
from sparse_models.models import MLP, convert, dense_mlp, draw
from tests.strategies import generator, normal, seeds, sizes

networks = st.builds(lambda seed, sizes: dense_mlp(convert(draw(sizes, generator(seed)), dtype=torch.float64)),
                     seeds, st.lists(sizes, min_size=2, max_size=4))  # fmt: skip


def samples(model: MLP, count: int) -> torch.Tensor:
    return normal(1, count, next(iter(model)).in_features)


@given(networks, sizes)
def test_without_thresholds_it_is_the_network(model: MLP, count: int) -> None:
    x = samples(model, count)
    assert torch.equal(Thresholded(model, [0.0] * (len(model.layers) - 1))(x), model(x))


@given(networks, sizes, st.floats(0, 1))
def test_thresholds_leave_at_least_their_share_of_zeros_where_activations_are_those_they_were_chosen_on(
    model: MLP, count: int, share: float
) -> None:
    x = samples(model, count)
    chosen = thresholds_for(model, x, share)
    assert len(chosen) == len(model.layers) - 1
    of_inputs, *of_hidden = zeros_of(Thresholded(model, chosen), x)
    assert of_inputs == 0
    if of_hidden:  # later layers are given other activations than those without thresholds
        assert of_hidden[0] >= share - 1e-9
        assert of_hidden[0] >= zeros_of(Thresholded(model, [0.0] * len(chosen)), x)[1]


def test_samples_take_turns() -> None:
    model = dense_mlp(convert(draw((5, 4, 3), generator(0)), dtype=torch.float64))
    x = samples(model, 3)
    forward = one_by_one(model, x)
    found = [forward() for _ in range(4)]
    assert torch.allclose(torch.cat(found[:3]), model(x))
    assert torch.equal(found[3], found[0])
