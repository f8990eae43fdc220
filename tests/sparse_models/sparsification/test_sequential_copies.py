"""A user's nn.Sequential that infers its sparse layers in one call: copies of it, and other parameters in it."""

import copy
import io
import pickle

import pytest
import torch
from torch.func import functional_call

from sparse_models import SparseSequential
from tests.sparse_models.sparsification.test_sequential import WIDTH, halved, mlp, plain
from tests.strategies import normal


@pytest.mark.parametrize("batch", [1, 2])
def test_a_net_that_has_been_used_is_copied_after_it_has_lost_its_memory(batch: int) -> None:
    net, x = mlp(), normal(0, batch, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        expected = [net(x) for _ in range(3)][-1]
        copied = copy.deepcopy(net.to("meta")).to_empty(device="cpu")
        copied.load_state_dict(mlp().state_dict())
        torch.testing.assert_close(copied(x), expected)


@pytest.mark.parametrize("batch", [1, 40])
def test_copies_are_of_their_own_and_hold_nothing(batch: int) -> None:
    net, x, file = mlp(), normal(0, batch, WIDTH, dtype=torch.float32), io.BytesIO()
    with torch.no_grad():
        expected = [net(x) for _ in range(3)][-1]
        torch.save(net, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), loaded):  # noqa: S301  # our own
            assert type(other) is SparseSequential
            assert other._plan is None
            for _ in range(3):
                torch.testing.assert_close(other(x), expected)
            halved(other)
            assert not torch.allclose(other(x), expected)
        assert torch.equal(net(x), expected)


@pytest.mark.parametrize("batch", [1, 40])
def test_other_parameters_for_one_call_are_used(batch: int) -> None:
    net, x = mlp(), normal(0, batch, WIDTH, dtype=torch.float32)
    other = {name: parameter.detach() * 2 for name, parameter in net.named_parameters()}
    with torch.no_grad():
        before = [net(x) for _ in range(3)][-1]
        expected = plain(net)
        expected.load_state_dict(other, strict=False)
        for _ in range(2):
            torch.testing.assert_close(functional_call(net, other, (x,)), expected(x))
            assert torch.equal(net(x), before)
