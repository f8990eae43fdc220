import pytest
import torch

from sparse_models.kernels.cuda import shared_rate
from tests.helpers.gpu.on_a_card import device

__all__ = ["device"]


def test_every_thread_loads_and_adds_as_often_as_is_counted(device: str) -> None:
    found = shared_rate.sums(3, device)
    assert found.tolist() == [8.0 * 3 * shared_rate.LOADS] * len(found)


@pytest.mark.card
def test_a_card_adds_up_less_from_shared_memory_than_from_registers() -> None:
    wide, narrow = (shared_rate.shared_gflops("cuda", number_bytes) for number_bytes in (2, 4))
    assert wide == pytest.approx(2 * narrow, rel=0.2)
    card = torch.cuda.get_device_properties()
    assert 1e3 < narrow < card.multi_processor_count * 128 * 2 * 3
