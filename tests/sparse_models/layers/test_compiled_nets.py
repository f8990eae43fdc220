"""Layers and whole nets that are compiled, in a process of their own: compiling is off where tests run."""

import sys

import pytest

from tests.helpers.processes.commands import run

LAYERS = """
import torch
from tests.sparse_models.layers.test_in_pytorch import KERNELS, layer_of, like
for name in KERNELS:
    layer = layer_of(name)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x, y = (like(layer, 7, 3).requires_grad_() for _ in range(2))
    layer(x).square().sum().backward()
    expected = layer.values.grad
    layer.zero_grad()
    compiled(y).square().sum().backward()
    # A variant that is measured for the one may add up in another order than the other's: sums of numbers up to 700.
    torch.testing.assert_close((y.grad, layer.values.grad), (x.grad, expected), rtol=1e-5, atol=1e-3)
    with torch.no_grad():
        torch.testing.assert_close(compiled.eval()(x), layer(x))
"""

NETS = """
import torch
from torch import nn
from sparse_models.models import MLP
from sparse_models.sparsification.sequential import fit_sequences
from tests.sparse_models.layers.test_in_pytorch import TRACED, layer_of, like
for number, name in enumerate(TRACED):
    layers = [layer_of(name, 80, 80, seed) for seed in range(2)]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    fit_sequences(net)
    for learns in (True, False):
        model = net if learns == bool(number % 2) else MLP(layers)  # every layer, and every kind of net, does both
        torch._dynamo.reset()
        compiled = torch.compile(model.train(learns), backend="aot_eager", fullgraph=True)
        for batch in (1, 8, 64, 7, 9):  # the second of a dimension has it compiled for any
            x = like(layers[0], batch)
            with torch.set_grad_enabled(learns):
                found, expected = compiled(x), layers[1](layers[0](x).relu())
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
            if learns:
                slopes = [torch.autograd.grad(one.square().sum(), layers[0].values) for one in (found, expected)]
                torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-1)
"""


def test_compile_sees_whole_graphs_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    command = [sys.executable, "-W", "ignore", "-c", LAYERS + NETS]
    done = run(command)
    assert (done.returncode, done.stderr) == (0, "")
