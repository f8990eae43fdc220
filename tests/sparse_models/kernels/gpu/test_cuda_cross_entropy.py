"""The cross-entropy of a GPU's chains against PyTorch's in float64: on a card, and the same source in the emulator."""

import pytest
import torch

from sparse_models.kernels.cuda.cross_entropy import THREADS, cross_entropy
from tests.helpers.gpu.on_a_card import device

__all__ = ["device"]  # a fixture
pytestmark = pytest.mark.usefixtures("poisoned")

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("classes", "batch"), [(1, 1), (10, THREADS), (7, 2 * THREADS + 3), (300, 5)])
def test_loss_and_slope_are_pytorchs(device: str, classes: int, batch: int, dtype: torch.dtype) -> None:
    numbers = torch.Generator().manual_seed(classes)
    logits = (20 * torch.randn(classes, batch, generator=numbers)).to(dtype)
    labels = torch.randint(classes, (batch,), generator=numbers)
    exact = logits.double().requires_grad_()
    expected = torch.nn.functional.cross_entropy(exact.t(), labels)
    expected.backward()
    assert exact.grad is not None
    for _ in range(2):
        loss, slope = cross_entropy(logits.to(device), labels.to(device))
        assert (loss.dtype, slope.dtype, slope.shape) == (dtype, dtype, logits.shape)
        torch.testing.assert_close(loss.double().cpu(), expected.detach(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
        assert float((slope.double().cpu() - exact.grad).abs().max()) * batch < TOLERANCE[dtype]


def test_a_label_that_is_no_class_makes_the_loss_nan_and_no_other_sample(device: str) -> None:
    logits = torch.randn(4, 6, generator=torch.Generator().manual_seed(0)).to(device)
    for label in (-100, -1, 4):
        loss, slope = cross_entropy(logits, torch.tensor([0, 1, 2, label, 3, 0], device=device))
        assert loss.isnan()
        assert slope.isnan().any(0).tolist() == [False, False, False, True, False, False]


def test_logits_that_are_infinite_give_what_pytorch_gives(device: str) -> None:
    logits = torch.tensor([[0.0, -torch.inf, torch.inf], [1.0, 2.0, 0.0]])
    labels = torch.tensor([1, 1, 1])
    loss, slope = cross_entropy(logits.to(device), labels.to(device))
    assert loss.isnan()
    assert slope.isnan().any(0).tolist() == [False, False, True]
    torch.testing.assert_close(slope[:, 1].cpu(), torch.zeros(2))
