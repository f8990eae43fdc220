"""Of how many threads a team is."""

import pytest
import torch

from sparse_models.kernels.cpu.blocks import products
from tests.sparse_models.kernels.test_blocks import problem

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.mark.parametrize(("rows", "batch"), [(16, 256), (48, 256), (384, 128)])
def test_of_few_rows_of_blocks_no_thread_goes_without(monkeypatch: pytest.MonkeyPatch, rows: int, batch: int) -> None:
    structure, _, values, x, bias, _ = problem(0, (16, 16), (rows, 32), batch, 0.5, torch.float32)
    teams = list[int]()
    monkeypatch.setattr(products, "run", lambda *given: teams.append(given[2]))
    products.product(structure, values, x, bias)
    assert teams == [2]
