"""Layers in a process that is forked after passes of its parent, as by DataLoader and servers, and weights shared with it."""

import os
import sys

import pytest

from tests.helpers.processes.commands import output

SCRIPT = """
import os
import signal
import sys

import torch

from tests.sparse_models.layers.test_in_pytorch import layer_of, like

torch.set_num_threads(2)
layers = [layer_of(name, 512, 512).eval() for name in sys.argv[1:]]

def passes():
    outputs = []
    for layer in layers:
        for batch in (1, 2, 64):
            with torch.no_grad():
                outputs += [layer(like(layer, batch)) for _ in range(2)]
            layer.zero_grad()
            layer(like(layer, batch)).sum().backward()
            outputs.append(layer.values.grad)
    return [*outputs, torch.ones(1024, 1024).exp()]  # the last by PyTorch's own team

expected = passes()
for _ in range(2):
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # ends it, were it to wait for ever
        try:
            torch.testing.assert_close(passes(), expected)
            assert torch.get_num_threads() == 2
        except BaseException as problem:
            print(repr(problem), flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
torch.testing.assert_close(passes(), expected)
"""

SHARED = """
import itertools
import os
import sys

import torch

from tests.sparse_models.layers.test_in_pytorch import layer_of, like

with torch.no_grad():
    for name, batch in itertools.product(sys.argv[1:], (1, 2)):
        layer = layer_of(name, 512, 512).eval().share_memory()
        x = like(layer, batch)
        outputs = [layer(x) for _ in range(3)]
        child = os.fork()
        if child == 0:
            for parameter in layer.parameters():
                parameter.mul_(2)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        torch.testing.assert_close(layer(x), 2 * outputs[-1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_forked_process_computes_what_its_parent_did() -> None:
    output([sys.executable, "-c", SCRIPT, "tiled", "block16", "csr"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_what_another_process_makes_of_weights_that_it_shares_is_multiplied() -> None:
    output([sys.executable, "-c", SHARED, "tiled", "block16", "input_skipping"])
