"""A user's nn.Sequential whose first module takes what is no tensor, or gives one whose numbers are not in memory."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparse_models import SparseSequential, sparsify
from sparse_models.errors import InputError
from tests.sparse_models.sparsification.test_sequential import WIDTH, plain
from tests.strategies import normal


class Sum(nn.Module):
    def forward(self, given: Any) -> Tensor:
        return torch.stack([*(given.values() if isinstance(given, dict) else given)]).sum(0)


@pytest.mark.parametrize("with_gradients", [False, True])
@pytest.mark.parametrize("pack", [tuple, list, lambda parts: dict(enumerate(parts))])
def test_what_the_first_module_takes_is_handed_to_it(pack: Any, with_gradients: bool) -> None:
    net = sparsify(nn.Sequential(Sum(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)), sparsity=0.7)
    assert type(net) is SparseSequential
    given = pack([normal(seed, 3, WIDTH, dtype=torch.float32) for seed in range(2)])
    with torch.set_grad_enabled(with_gradients):
        torch.testing.assert_close(net(given), plain(net)(given))


class Changed(nn.Module):
    change: Any = staticmethod(torch.clone)

    def forward(self, x: Tensor) -> Any:
        return self.change(x)


@pytest.mark.parametrize("batch", [1, 40])
def test_what_a_module_gives_is_looked_at_before_kernels_are_given_it(batch: int) -> None:
    changed = Changed()
    net = sparsify(nn.Sequential(changed, nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 10)), sparsity=0.7).eval()
    x = normal(0, batch, WIDTH, dtype=torch.float32)
    with torch.no_grad():
        for _ in range(3):
            net(x)  # by then calls are ready
        changed.change = Tensor.to_sparse
        with pytest.raises(InputError, match="expected an input in strides"):
            net(x)
        changed.change = lambda x: torch._efficientzerotensor(x.shape)  # which has no address
        torch.testing.assert_close(net(x), plain(net)(x))
