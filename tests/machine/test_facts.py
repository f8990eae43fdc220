import getpass
import json
import os
import socket
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.machine import facts as machine
from bench.machine.facts import facts, has_bfloat16

# A host may be called "vm" or "linux", and such a word is in half of all facts.
PRIVATE = {name for name in (socket.gethostname(), getpass.getuser(), str(Path.home()), str(Path.cwd())) if len(name) > 5}


def nothing(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]


def test_facts_survive_json_and_are_plain() -> None:
    told = facts(["cpu"])
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert {type(leaf) for leaf in leaves(told)} <= {str, int, float, type(None)}


def test_facts_name_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6")
    monkeypatch.setenv("OMP_TOOL_LIBRARIES", str(Path.home() / "tool.so"))
    told = json.dumps(facts(["cpu", "cuda"]))
    assert not [name for name in PRIVATE if name in told]
    assert not [
        leaf for leaf in leaves(facts(["cpu"])) if isinstance(leaf, str) and ("/" in leaf or leaf == socket.gethostname())
    ]
    assert "d72c" not in told


def test_facts_agree_with_what_the_process_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    told = facts(["cpu"])
    assert told["cpu"]["logical_cores"] == os.cpu_count()
    assert told["torch"]["version"] == torch.__version__
    assert told["torch"]["threads"] == torch.get_num_threads()
    assert told["versions"]["pytest-benchmark"]
    assert told["environment"]["OMP_NUM_THREADS"] == "7"
    assert "OMP_WAIT_POLICY" not in told["environment"]


def test_facts_survive_a_machine_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU", "/nowhere")
    monkeypatch.setattr(Path, "read_text", nothing)
    monkeypatch.setattr(subprocess, "run", nothing)
    monkeypatch.setattr(machine, "version", nothing)
    for name in ("getloadavg", "sysconf", "sched_getaffinity"):
        monkeypatch.delattr(os, name, raising=False)
    told = facts(["cpu", "cuda"])
    json.dumps(told)
    assert told["cpu"]["caches"] == {"L1d": None, "L2": None, "L3": None}
    for fact in ("model", "physical_cores", "usable_cores", "quota_cores", "governor", "load_average"):
        assert told["cpu"][fact] is None
    assert told["memory_bytes"] is told["huge_pages"] is told["torch"]["openmp"] is told["versions"]["numpy"] is None


@pytest.mark.parametrize(
    "failure", [PermissionError(), subprocess.TimeoutExpired("x", 5), subprocess.CalledProcessError(9, "x")]
)
def test_a_command_that_fails_tells_nothing(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(subprocess, "run", fail)
    assert machine._output("nvidia-smi") is None


def test_caches_are_read_with_their_sharing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CPU", str(tmp_path))
    for index, (level, kind, size, cores) in enumerate(
        [
            ("1", "Instruction", "64K", "0"),
            ("1", "Data", "48K", "0,96"),
            ("2", "Unified", "1024K", "0"),
            ("3", "Unified", "32768K", "0-7,96-103"),
        ]
    ):
        folder = tmp_path / "cpu0/cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", cores)):
            (folder / name).write_text(f"{text}\n")
    assert [machine.cache_of(name) for name in ("L1d", "L2", "L3")] == [
        {"bytes": 48 * 2**10, "shared_by_cores": 2},
        {"bytes": 2**20, "shared_by_cores": 1},
        {"bytes": 2**25, "shared_by_cores": 16},
    ]


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        (
            {
                "/proc/self/cgroup": "0::/a/b",
                "/sys/fs/cgroup/a/b/cpu.max": "max 100000",
                "/sys/fs/cgroup/a/cpu.max": "150000 100000",
            },
            1.5,
        ),
        ({"/proc/self/cgroup": "0::/host/only", "/sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
        (
            {
                "/proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/a\n0::/",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "50000",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            0.5,
        ),
        ({"/proc/self/cgroup": "0::/", "/sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ({}, None),
    ],
)
def test_the_tightest_quota_of_any_cgroup_version_holds(
    monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None
) -> None:
    monkeypatch.setattr(machine, "read_text", lambda path: files.get(str(path)))
    assert machine.quota_cores() == quota


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("570.12, 345, 2619, 1980, [N/A]", {"driver": "570.12", "sm_mhz": 345, "sm_mhz_max": 1980, "memory_mhz_max": None}),
        (None, {"driver": None, "sm_mhz": None}),
        ("No devices were found", {"driver": None, "memory_mhz": None}),
    ],
)
def test_a_gpu_is_told_with_and_without_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, printed: str | None, expected: dict[str, Any]
) -> None:
    card = {
        "name": "H",
        "major": 9,
        "minor": 0,
        "total_memory": 80,
        "multi_processor_count": 132,
        "L2_cache_size": 50,
        "uuid": "u",
    }
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(**card))
    monkeypatch.setattr(machine, "_output", lambda *_: printed)
    told = facts(["cpu", "cuda"])["gpu"]
    assert expected.items() <= told.items()
    assert (told["capability"], told["multiprocessors"], told["l2_bytes"]) == ("9.0", 132, 50)
    assert "uuid" not in told
    assert facts(["cpu"])["gpu"] is None


@pytest.mark.parametrize(
    ("flags", "has"),
    [
        ("flags\t\t: fpu avx512_bf16 amx_tile", True), ("flags: fpu amx_bf16", True), ("Features\t: fp asimd bf16", True),
        ("flags: fpu avx512f", False), ("model name: bf16", False), ("", False),
    ],
)  # fmt: skip
def test_bfloat16_is_there_where_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch, flags: str, has: bool) -> None:
    monkeypatch.setattr(machine, "read_text", lambda _: f"processor\t: 0\n{flags}\npower: 1")
    assert has_bfloat16() is has
