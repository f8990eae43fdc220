"""An MLP of torch.nn: trained dense, pruned to a tenth of its weights and fine-tuned; and one trained sparse by RigL.

python examples/own_mlp.py [steps]
"""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from sparse_models import UPDATES, dense_gradients, sparse_layers, sparsify, update_masks
from sparse_models.data import DATA, Split


def net() -> nn.Sequential:
    """Return the net, as anybody writes it: [batch, 64] -> [batch, 10]."""
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))


def model() -> tuple[nn.Module, Tensor]:
    """Return the net and an example batch, as `pytest bench --model examples/own_mlp.py:model` takes them."""
    return net(), torch.randn(128, 64)


def pruned() -> tuple[nn.Module, Tensor]:
    """Return the net as `torch.nn.utils.prune` leaves it at sparsity 0.8, no faster than it was, and an example batch."""
    module, batch = model()
    for layer in module.children():
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", amount=0.8)
    return module, batch


def step(model: nn.Module, optimizer: torch.optim.Optimizer, data: Split) -> None:
    """Take one step on 128 samples."""
    batch = torch.randint(len(data.labels), (128,))
    optimizer.zero_grad()
    functional.cross_entropy(model(data.inputs[batch]), data.labels[batch]).backward()
    optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Split) -> float:
    """Return the share of samples classified correctly."""
    return float((model(data.inputs).argmax(1) == data.labels).double().mean())


def main(steps: int = 200) -> Mapping[str, float]:
    """Train, prune and fine-tune, and return the accuracies."""
    torch.manual_seed(0)
    data, found = DATA["digits"](), {}
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    for _ in range(steps):
        step(model, optimizer, data.train)
    found["dense"] = accuracy(model, data.test)

    sparsify(model, sparsity=0.9, optimizer=optimizer)  # by magnitude; the optimizer's moments follow
    found["pruned to 0.9"] = accuracy(model, data.test)
    for _ in range(steps):
        step(model, optimizer, data.train)
    found["fine-tuned"] = accuracy(model, data.test)

    model = sparsify(net(), sparsity=0.9, by="random", distribution="erk")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    layers, rule = sparse_layers(model).values(), UPDATES["rigl"]
    for number in range(1, steps + 1):
        moves = number % 50 == 0 and number < steps
        with dense_gradients(layers if moves else []) as gradients:
            step(model, optimizer, data.train)
        if moves:
            update_masks(layers, rule, rule.drop_fraction(number / steps), optimizer=optimizer, gradients=gradients)
    found["RigL from the start"] = accuracy(model, data.test)
    return found


if __name__ == "__main__":
    for name, value in main(*map(int, sys.argv[1:])).items():
        print(f"{name}: {value:.3f}")
