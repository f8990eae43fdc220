"""What of the machine decides a timing: facts that name nobody, and its two bounds, arithmetic and memory, as measured."""

import math
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from llvmlite import binding

PACKAGES = ["numpy", "numba", "pytest-benchmark", "scipy", "triton"]
VARIABLES = ["CUDA_VISIBLE_DEVICES", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS"]
VARIABLES += ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTORCH_CUDA_ALLOC_CONF"]
SMI = ["driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem"]
CPU = "/sys/devices/system/cpu"
MEASURE_SECONDS, MIN_REPETITIONS, MAX_BYTES, DEFAULT_CACHE_BYTES = 0.1, 3, 2**28, 2**26
Fact = TypeVar("Fact")


def facts(devices: Sequence[str]) -> dict[str, Any]:
    """Return what decides a timing in bytes, cores and MHz, None where unknown, and no host, user or path; a GPU if asked."""
    build, made = torch.__config__.show(), torch.version
    model = _find(r"^model name\s*: (.+)", _text("/proc/cpuinfo")) or _find(r"Model name:\s*(.+)", _output("lscpu"))
    siblings = {_text(path) for path in Path(CPU).glob("cpu[0-9]*/topology/thread_siblings_list")} - {None}
    return {
        "cpu": {
            # By its microarchitecture, as LLVM has it: virtual machines of all kinds call their processor "AMD EPYC".
            "name": _attempt(binding.get_host_cpu_name),
            "model": model or _output("sysctl", "-n", "machdep.cpu.brand_string"),
            "architecture": platform.machine(),
            "logical_cores": os.cpu_count(),
            "physical_cores": len(siblings) or _attempt(lambda: int(_output("sysctl", "-n", "hw.physicalcpu") or "")),
            "usable_cores": _attempt(lambda: len(os.sched_getaffinity(0))),
            "quota_cores": _quota(),
            "caches": {name: _cache(name) for name in ("L1d", "L2", "L3")},
            "governor": _text(f"{CPU}/cpu0/cpufreq/scaling_governor"),
            "load_average": _attempt(lambda: list(os.getloadavg())),
        },
        "memory_bytes": _attempt(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "huge_pages": _find(r"\[(\w+)\]", _text("/sys/kernel/mm/transparent_hugepage/enabled")),
        "os": {"name": platform.system(), "release": platform.release()},
        "torch": {"version": made.__version__, "git": made.git_version, "cuda": made.cuda}
        | {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
        | {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "blas": _find(r"BLAS_INFO=(\w+)", build)}
        | {"mkl": _find(r"Library Version (\d[\d.]*)", build), "onednn": _find(r"MKL-DNN v(\d[\d.]*)", build)}
        # The runtime that the process has loaded decides how threads wait, whichever torch was built with.
        | {"openmp": _find(r"/lib(gomp|iomp5|omp)\b[^/\n]*\.so", _text("/proc/self/maps"))},
        "versions": {"python": platform.python_version()} | {name: _attempt(partial(version, name)) for name in PACKAGES},
        # CUDA_VISIBLE_DEVICES may name a GPU by its UUID.
        "environment": {name: re.sub(r"-[-\w]{8,}", "-*", os.environ[name]) for name in VARIABLES if name in os.environ},
        "gpu": _attempt(_gpu) if any(device.startswith("cuda") for device in devices) else None,
    }


def dense_gflops(device: str, dtype: str = "float32", threads: int | None = None) -> float:
    """Return the GFLOP/s that torch's dense matrix product reaches here, with `threads` threads where they are given."""
    large = 1024 if device == "cpu" else 4096  # a GPU is not full with 1024
    random = torch.Generator(device).manual_seed(0)  # its own: what is drawn elsewhere must not depend on this
    left, right = (torch.rand(large, large, generator=random, device=device).to(getattr(torch, dtype)) for _ in range(2))
    best = 0.0
    for size in (large // 4, large // 2, large):
        a, b = left[:size, :size].contiguous(), right[:size, :size].contiguous()
        if not best or 2 * size**3 / best < 2 * MEASURE_SECONDS * 1e9:  # a type without instructions of its own is 100 x slower
            best = max(best, 2 * size**3 / _best_seconds(partial(torch.mm, a, b), device, threads) / 1e9)
    return best


def memory_gb_per_s(device: str) -> float:
    """Return the GB/s (1e9 bytes, those read and those written) of a copy between two buffers that no cache holds."""
    size = min(MAX_BYTES, 4 * cache_bytes(device)) if device == "cpu" else MAX_BYTES
    available = int(_find(r"MemAvailable:\s*(\d+) kB", _text("/proc/meminfo")) or 4 * MAX_BYTES // 1024) * 1024
    free = available if device == "cpu" else torch.cuda.mem_get_info(device)[0]
    # Ones: untouched pages of zeros are all the same page, which a cache does hold.
    source = torch.ones(max(4, min(size, free // 4)) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best_seconds(lambda: target.copy_(source), device) / 1e9


def cache_bytes(device: str) -> int:
    """Return the bytes of all the caches of the last level together; where they are not told, enough for any (64 MiB)."""
    if device != "cpu":
        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or DEFAULT_CACHE_BYTES
    cache = _cache("L3") or _cache("L2")
    if not cache or not cache["bytes"]:
        return DEFAULT_CACHE_BYTES
    return cache["bytes"] * math.ceil((os.cpu_count() or 1) / (cache["shared_by_cores"] or 1))


def _best_seconds(work: Callable[[], object], device: str, threads: int | None = None) -> float:
    before, times = torch.get_num_threads(), list[float]()
    torch.set_num_threads(threads or before)
    try:
        work()
        while len(times) < MIN_REPETITIONS or sum(times) < MEASURE_SECONDS:
            start = time.perf_counter()
            work()
            if device != "cpu":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
    return min(times)  # a bound is sought, and noise only ever adds


def _gpu() -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties()  # raises where there is none
    told = {"name": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "memory_bytes": gpu.total_memory}
    told |= {"multiprocessors": gpu.multi_processor_count, "l2_bytes": getattr(gpu, "L2_cache_size", None)}
    # By the UUID, which is not kept: nvidia-smi numbers the GPUs in an order of its own.
    smi = _output("nvidia-smi", f"--id=GPU-{gpu.uuid}", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits") or ""
    driver, *clocks = (value.strip() for value in smi.split(",")) if smi.count(",") == len(SMI) - 1 else [None] * len(SMI)
    mhz = [int(clock) if clock and clock.isdecimal() else None for clock in clocks]  # "[N/A]" where it is not told
    return told | {"driver": driver} | dict(zip(("sm_mhz", "memory_mhz", "sm_mhz_max", "memory_mhz_max"), mhz, strict=True))


def _cache(name: str) -> dict[str, int | None] | None:
    for folder in Path(CPU, "cpu0/cache").glob("index*"):
        kind = {"Data": "d", "Unified": ""}.get(_text(folder / "type") or "", "i")
        if name == f"L{_text(folder / 'level')}{kind}":
            kib = _find(r"^(\d+)K$", _text(folder / "size"))
            spans = re.findall(r"(\d+)(?:-(\d+))?", _text(folder / "shared_cpu_list") or "")
            cores = sum(int(last or first) - int(first) + 1 for first, last in spans)
            return {"bytes": int(kib) * 1024 if kib else None, "shared_by_cores": cores or None}
    return None


def _quota() -> float | None:
    quotas: list[float] = []
    for controllers, path in re.findall(r"^\d+:(.*?):/(.*)$", _text("/proc/self/cgroup") or "", re.MULTILINE):
        folder = Path("/sys/fs/cgroup", "cpu" if controllers else "", path)
        for level in (folder, *folder.parents) if not controllers or "cpu" in controllers.split(",") else ():
            told = _text(level / "cpu.max") or f"{_text(level / 'cpu.cfs_quota_us')} {_text(level / 'cpu.cfs_period_us')}"
            quotas += [int(of) / int(per) for of, per in re.findall(r"^(\d+) (\d+)$", told)]
    return min(quotas, default=None)  # the tightest level holds


def _find(pattern: str, text: str | None) -> str | None:
    return found[1].strip() if (found := re.search(pattern, text or "", re.MULTILINE)) else None


def _text(path: str | Path) -> str | None:
    return _attempt(lambda: Path(path).read_text(encoding="utf-8", errors="replace").strip()) or None


def _output(*command: str) -> str | None:
    text = _attempt(lambda: subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout)  # noqa: S603
    return text.strip() or None if text else None


def _attempt(read: Callable[[], Fact]) -> Fact | None:
    try:
        return read()
    except (AssertionError, AttributeError, ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError):
        return None  # no fact is worth a failed run
