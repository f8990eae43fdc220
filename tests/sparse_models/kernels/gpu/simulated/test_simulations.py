"""What a card would not forgive is seen without one: the emulator and the interpreter refuse it."""

import contextlib
from typing import Any

import pytest
import torch

from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch
from tests.helpers.gpu import cuda_emulator, interpreted

KERNEL = 'extern "C" __global__ void one(float* x, int at) {{ {does} }}'
DOES = {
    "memory is touched that is no tensor's": "x[at] = x[at + {past}];",
    "memory beside a tensor is overwritten": "x[at - {past}] = 1.f;",
    "a load is misaligned": "*(float4*)x = *(float4*)(x + {past});",
    "threads wait for one another for ever": "if (at + {past} > 8 && threadIdx.x) __syncthreads();",
}


@cuda_emulator.needs_compiler
@pytest.mark.parametrize("past", [0, 1])
@pytest.mark.parametrize("reason", DOES)
def test_the_emulator_refuses_what_a_card_does_not_forgive(reason: str, past: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "source_of", lambda *_: KERNEL.format(does=DOES[reason].format(past=past)))
    x = torch.zeros(8)
    at = {"memory beside a tensor is overwritten": 0, "threads wait for one another for ever": 8}.get(reason, 7)

    def run() -> None:
        cuda_emulator.run("one.cu", (("PAST", past), ("REASON", list(DOES).index(reason))), Launch((1, 1), 2), x, at)

    with pytest.raises(AssertionError, match=reason) if past else contextlib.nullcontext():
        run()


@cuda_emulator.needs_compiler
def test_a_tensor_that_is_two_arguments_is_one_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'extern "C" __global__ void two(float* x, const float* y) { for (int i = 0; i < 7; i++) x[i + 1] = y[i]; }'
    monkeypatch.setattr(_compile, "source_of", lambda *_: text)
    x, y = torch.arange(8.0), torch.arange(8.0)
    cuda_emulator.run("two.cu", (("TWO", 1),), Launch((1, 1), 1), x, x)
    assert not x.any()
    cuda_emulator.run("two.cu", (("TWO", 1),), Launch((1, 1), 1), x, y)
    assert x.tolist() == [0, 0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("name", ["loads", "stores"])
def test_the_interpreter_refuses_memory_that_is_no_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted.needs_interpreter()
    interpreted.within_tensors(monkeypatch)
    kernels: Any = interpreted.interpreted_kernels()
    whole, x = torch.zeros(64), torch.ones(4, 8)
    inside = whole[: 32 if name == "loads" else 24].view(8, -1)  # of a larger memory, which would be read or written in silence
    tensors = (x, inside) if name == "stores" else (inside, torch.empty(64))
    rows, columns = (4, 8) if name == "stores" else (8, 8)
    with pytest.raises(Exception, match="memory is touched that is no tensor's"):
        kernels.transposed[1, 1](*tensors, rows, columns, SIDE=16)
    kernels.transposed[1, 1](x, whole[:32], 4, 8, SIDE=16)
    assert torch.equal(whole[:32], torch.ones(32))
