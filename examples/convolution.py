"""A small convolutional net of torch.nn: pruned while it is trained, then rewound to early weights and trained once more.

python examples/convolution.py [steps]
"""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparse_models import GradualPruner, sparse_layers, sparsify
from sparse_models.data import DATA, Split


def net() -> nn.Sequential:
    """Return the net: [batch, 1, 8, 8] -> [batch, 10]."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 1), nn.BatchNorm2d(128), nn.ReLU(),
        nn.Flatten(), nn.Linear(128 * 16, 10),
    )  # fmt: skip


def model() -> tuple[nn.Module, Tensor]:
    """Return the net and an example batch, as `pytest bench --model examples/convolution.py:model` takes them."""
    return net(), torch.randn(64, 1, 8, 8)


@torch.no_grad()
def accuracy(model: nn.Module, data: Split) -> float:
    """Return the share of samples classified correctly."""
    right = model.eval()(data.inputs.view(-1, 1, 8, 8)).argmax(1) == data.labels
    model.train()
    return float(right.double().mean())


def main(steps: int = 200) -> Mapping[str, float]:
    """Train, prune, rewind and train again, and return the accuracies."""
    torch.manual_seed(0)
    data, model = DATA["digits"](), net()
    # The first convolution has few weights, which matter much: it stays dense, as in most papers.
    sparsify(model, sparsity=0, types=(nn.Conv2d, nn.Linear), least=1000)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = GradualPruner(model, optimizer, sparsity=0.8, begin=steps // 4, end=steps, every=10, distribution="erk")

    def train(first: int) -> None:
        for number in range(first, steps):
            if number == steps // 10:
                pruner.remember()  # early weights, to which all that is kept goes back later
            batch = torch.randint(len(data.train.labels), (64,))
            optimizer.zero_grad()
            inputs = data.train.inputs[batch].view(-1, 1, 8, 8)
            functional.cross_entropy(model(inputs), data.train.labels[batch]).backward()
            optimizer.step()
            pruner.step()  # does nothing after `end`

    train(0)
    found = {"pruned while trained": accuracy(model, data.test)}
    pruner.rewind()
    train(steps // 10 + 1)
    found["rewound, trained again"] = accuracy(model, data.test)
    layers = sparse_layers(model).values()
    return found | {"sparsity": 1 - sum(layer.nnz for layer in layers) / sum(layer.mask.numel() for layer in layers)}


if __name__ == "__main__":
    for name, value in main(*map(int, sys.argv[1:])).items():
        print(f"{name}: {value:.3f}")
