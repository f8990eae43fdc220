import os
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.machine import bounds, facts
from bench.machine.bounds import dense_gflops, memory_gb_per_s, read_gb_per_s
from tests.machine.test_facts import nothing


def test_the_bounds_are_measured_also_where_the_machine_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "CPU", "/nowhere")
    monkeypatch.setattr(bounds, "MAX_BYTES", 2**22)
    monkeypatch.setattr(Path, "read_text", nothing)
    assert memory_gb_per_s("cpu") > 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_gflops_are_positive_and_leave_threads_and_random_numbers_alone(dtype: str) -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    assert dense_gflops("cpu", dtype, threads=1) > 0
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_threads_are_those_asked_for_and_are_restored_also_after_a_failure() -> None:
    threads, seen = torch.get_num_threads(), []

    def work() -> None:
        seen.append(torch.get_num_threads())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bounds._best_seconds(work, "cpu", threads + 1)
    assert seen == [threads + 1]
    assert torch.get_num_threads() == threads


def test_gb_per_s_is_positive_and_its_buffers_outgrow_the_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, ones, buffers = torch.get_num_threads(), torch.ones, list[torch.Tensor]()

    def noted(*size: int, **of: Any) -> torch.Tensor:
        buffers.append(ones(*size, **of))
        return buffers[-1]

    monkeypatch.setattr(torch, "ones", noted)
    monkeypatch.setattr(bounds, "cache_of", lambda name: {"bytes": 2**21, "shared_by_cores": os.cpu_count()})
    assert memory_gb_per_s("cpu") > 0
    assert [buffer.nbytes for buffer in buffers] == [2**23]
    assert read_gb_per_s("cpu") > 0
    assert buffers[1].nbytes >= 2**28
    assert torch.get_num_threads() == threads


@pytest.mark.card
def test_the_bounds_of_a_gpu_are_measured() -> None:
    assert dense_gflops("cuda") > 100
    assert read_gb_per_s("cuda") > memory_gb_per_s("cuda") / 2 > 10
    assert facts.facts(["cuda"])["gpu"]["name"] == torch.cuda.get_device_name()
