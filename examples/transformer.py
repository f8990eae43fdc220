"""A small transformer encoder of torch.nn, pruned gradually while it is trained: the layers between its attentions.

python examples/transformer.py [steps]
"""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models import GradualPruner, densify, sparse_layers, sparsify
from sparse_models.data import DATA


class RowReader(nn.Module):
    """Reads an image of 8 x 8 row by row: [batch, 64] -> [batch, 10]."""

    def __init__(self, width: int = 64) -> None:
        """Build two layers of a width."""
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.places = nn.Parameter(torch.zeros(8, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        rows = self.embed(x.view(-1, 8, 8)) + self.places
        return self.head(self.encoder(rows).mean(1))  # type: ignore[no-any-return]


def model() -> tuple[nn.Module, Tensor]:
    """Return the net and an example batch, as `pytest bench --model examples/transformer.py:model` takes them."""
    return RowReader(), torch.randn(64, 64)


def main(steps: int = 200) -> Mapping[str, float]:
    """Train and prune, and return the accuracy, the sparsity, and how far densified outputs differ."""
    torch.manual_seed(0)
    data, model = DATA["digits"](), RowReader()
    # Attention's own projections stay dense: nn.MultiheadAttention reads their weights and never calls them.
    sparsify(model, sparsity=0, names="encoder.*linear?")
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    pruner = GradualPruner(model, optimizer, sparsity=0.9, begin=steps // 4, end=steps * 3 // 4, every=10, by="global")
    for _ in range(steps):
        batch = torch.randint(len(data.train.labels), (64,))
        optimizer.zero_grad()
        functional.cross_entropy(model(data.train.inputs[batch]), data.train.labels[batch]).backward()
        optimizer.step()
        pruner.step()
    layers = sparse_layers(model).values()
    kept, all_of_them = sum(layer.nnz for layer in layers), sum(layer.mask.numel() for layer in layers)
    with torch.no_grad():
        outputs = model.eval()(data.test.inputs)
        difference = densify(model)(data.test.inputs) - outputs
    return {
        "accuracy": float((outputs.argmax(1) == data.test.labels).double().mean()),
        "sparsity": 1 - kept / all_of_them,
        "largest difference to the densified": float(difference.abs().max()),
    }


if __name__ == "__main__":
    for name, value in main(*map(int, sys.argv[1:])).items():
        print(f"{name}: {value:.3g}")
