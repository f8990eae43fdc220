"""The cross-entropy of a GPU's chains against PyTorch's in float64: on a card, and the same source in the emulator."""

import pytest
import torch

from sparse_models.kernels.cuda import cross_entropy as of_cuda
from sparse_models.kernels.cuda.cross_entropy import LEFT_OUT, THREADS, cross_entropy
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
    for label in (-101, -1, 4):
        loss, slope = cross_entropy(logits, torch.tensor([0, 1, 2, label, 3, 0], device=device))
        assert loss.isnan()
        assert slope.isnan().any(0).tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize("by_block", [True, False])
@pytest.mark.parametrize(("classes", "batch"), [(1, 1), (10, THREADS), (7, 2 * THREADS + 3)])
def test_samples_that_are_left_out_are_no_part_of_the_mean(
    device: str, classes: int, batch: int, monkeypatch: pytest.MonkeyPatch, *, by_block: bool
) -> None:
    """As PyTorch has it: where all are left out, the loss is NaN and the slope 0."""
    monkeypatch.setattr(of_cuda, "COUNTED", batch if by_block else 0)
    numbers = torch.Generator().manual_seed(batch)
    drawn = torch.randint(classes, (batch,), generator=numbers)
    for share in (0.3, 0.98, 1.0):
        labels = torch.where(torch.rand(batch, generator=numbers) < share, LEFT_OUT, drawn)
        exact = torch.randn(classes, batch, generator=numbers, dtype=torch.float64, requires_grad=True)
        expected = torch.nn.functional.cross_entropy(exact.t(), labels)
        expected.backward()
        loss, slope = cross_entropy(exact.detach().float().to(device), labels.to(device))
        torch.testing.assert_close(loss.double().cpu(), expected.detach(), rtol=1e-6, atol=1e-6, equal_nan=True)
        torch.testing.assert_close(slope.double().cpu(), exact.grad, rtol=1e-6, atol=1e-7)
        assert bool(loss.isnan()) == bool((labels == LEFT_OUT).all())
        assert not slope.cpu()[:, labels == LEFT_OUT].any()


def test_logits_that_are_infinite_give_what_pytorch_gives(device: str) -> None:
    logits = torch.tensor([[0.0, -torch.inf, torch.inf], [1.0, 2.0, 0.0]])
    labels = torch.tensor([1, 1, 1])
    loss, slope = cross_entropy(logits.to(device), labels.to(device))
    assert loss.isnan()
    assert slope.isnan().any(0).tolist() == [False, False, True]
    torch.testing.assert_close(slope[:, 1].cpu(), torch.zeros(2))
