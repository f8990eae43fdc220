"""What of the machine decides a timing: facts that name nobody."""

import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from llvmlite import binding

PACKAGES = ["cuda-bindings", "cuda-core", "numpy", "numba", "pytest-benchmark", "scipy", "triton"]
VARIABLES = ["CUDA_VISIBLE_DEVICES", "GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "MKL_NUM_THREADS"]
VARIABLES += ["OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTORCH_CUDA_ALLOC_CONF"]
SMI = ["driver_version", "clocks.sm", "clocks.mem", "clocks.max.sm", "clocks.max.mem"]
CPU = "/sys/devices/system/cpu"
Fact = TypeVar("Fact")


def facts(devices: Sequence[str]) -> dict[str, Any]:
    """Return what decides a timing in bytes, cores and MHz, None where unknown, and no host, user or path; a GPU if asked."""
    build, made = torch.__config__.show(), torch.version
    model = find(r"^model name\s*: (.+)", read_text("/proc/cpuinfo")) or find(r"Model name:\s*(.+)", _output("lscpu"))
    siblings = {read_text(path) for path in Path(CPU).glob("cpu[0-9]*/topology/thread_siblings_list")} - {None}
    return {
        "cpu": {
            # By its microarchitecture, as LLVM has it: virtual machines of all kinds call their processor "AMD EPYC".
            "name": _attempt(binding.get_host_cpu_name),
            "model": model or _output("sysctl", "-n", "machdep.cpu.brand_string"),
            "architecture": platform.machine(),
            "logical_cores": os.cpu_count(),
            "physical_cores": len(siblings) or _attempt(lambda: int(_output("sysctl", "-n", "hw.physicalcpu") or "")),
            "usable_cores": _attempt(lambda: len(os.sched_getaffinity(0))),
            "quota_cores": quota_cores(),
            "caches": {name: cache_of(name) for name in ("L1d", "L2", "L3")},
            "governor": read_text(f"{CPU}/cpu0/cpufreq/scaling_governor"),
            "load_average": _attempt(lambda: list(os.getloadavg())),
        },
        "memory_bytes": _attempt(lambda: os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "huge_pages": find(r"\[(\w+)\]", read_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        "os": {"name": platform.system(), "release": platform.release()},
        "torch": {"version": made.__version__, "git": made.git_version, "cuda": made.cuda}
        | {"threads": torch.get_num_threads(), "interop_threads": torch.get_num_interop_threads()}
        | {"cpu_capability": torch.backends.cpu.get_cpu_capability(), "blas": find(r"BLAS_INFO=(\w+)", build)}
        | {"mkl": find(r"Library Version (\d[\d.]*)", build), "onednn": find(r"MKL-DNN v(\d[\d.]*)", build)}
        # The runtime that the process has loaded decides how threads wait, whichever torch was built with.
        | {"openmp": find(r"/lib(gomp|iomp5|omp)\b[^/\n]*\.so", read_text("/proc/self/maps"))},
        "versions": {"python": platform.python_version()} | {name: _attempt(partial(version, name)) for name in PACKAGES},
        # CUDA_VISIBLE_DEVICES may name a GPU by its UUID.
        "environment": {name: re.sub(r"-[-\w]{8,}", "-*", os.environ[name]) for name in VARIABLES if name in os.environ},
        "gpu": _attempt(_gpu) if any(device.startswith("cuda") for device in devices) else None,
    }


def has_bfloat16() -> bool:
    """Tell whether the CPU has instructions that multiply bfloat16: AVX512-BF16, AMX, or Arm's."""
    return find(r"^(?:flags|Features)\s*:.*\b(avx512_bf16|amx_bf16|bf16)\b", read_text("/proc/cpuinfo")) is not None


def _gpu() -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties()  # raises where there is none
    told = {"name": gpu.name, "capability": f"{gpu.major}.{gpu.minor}", "memory_bytes": gpu.total_memory}
    told |= {"multiprocessors": gpu.multi_processor_count, "l2_bytes": getattr(gpu, "L2_cache_size", None)}
    # By the UUID, which is not kept: nvidia-smi numbers the GPUs in an order of its own.
    smi = _output("nvidia-smi", f"--id=GPU-{gpu.uuid}", f"--query-gpu={','.join(SMI)}", "--format=csv,noheader,nounits") or ""
    driver, *clocks = (value.strip() for value in smi.split(",")) if smi.count(",") == len(SMI) - 1 else [None] * len(SMI)
    mhz = [int(clock) if clock and clock.isdecimal() else None for clock in clocks]  # "[N/A]" where it is not told
    return told | {"driver": driver} | dict(zip(("sm_mhz", "memory_mhz", "sm_mhz_max", "memory_mhz_max"), mhz, strict=True))


def cache_of(name: str) -> dict[str, int | None] | None:
    """Return the bytes of the first core's cache of this name, as L1d, and by how many cores it is shared; None if unknown."""
    for folder in Path(CPU, "cpu0/cache").glob("index*"):
        kind = {"Data": "d", "Unified": ""}.get(read_text(folder / "type") or "", "i")
        if name == f"L{read_text(folder / 'level')}{kind}":
            kib = find(r"^(\d+)K$", read_text(folder / "size"))
            spans = re.findall(r"(\d+)(?:-(\d+))?", read_text(folder / "shared_cpu_list") or "")
            cores = sum(int(last or first) - int(first) + 1 for first, last in spans)
            return {"bytes": int(kib) * 1024 if kib else None, "shared_by_cores": cores or None}
    return None


def quota_cores() -> float | None:
    """Return how many cores' time this process may use, as containers limit it; None where there is no limit."""
    quotas: list[float] = []
    for controllers, path in re.findall(r"^\d+:(.*?):/(.*)$", read_text("/proc/self/cgroup") or "", re.MULTILINE):
        folder = Path("/sys/fs/cgroup", "cpu" if controllers else "", path)
        for level in (folder, *folder.parents) if not controllers or "cpu" in controllers.split(",") else ():
            told = (
                read_text(level / "cpu.max")
                or f"{read_text(level / 'cpu.cfs_quota_us')} {read_text(level / 'cpu.cfs_period_us')}"
            )
            quotas += [int(of) / int(per) for of, per in re.findall(r"^(\d+) (\d+)$", told)]
    return min(quotas, default=None)  # the tightest level holds


def find(pattern: str, text: str | None) -> str | None:
    """Return what the pattern's group matches in a text, None where it does not or there is no text."""
    return found[1].strip() if (found := re.search(pattern, text or "", re.MULTILINE)) else None


def read_text(path: str | Path) -> str | None:
    """Return what a file of the kernel says, None where it cannot be read or is empty."""
    return _attempt(lambda: Path(path).read_text(encoding="utf-8", errors="replace").strip()) or None


def _output(*command: str) -> str | None:
    text = _attempt(lambda: subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout)  # noqa: S603
    return text.strip() or None if text else None


def _attempt(read: Callable[[], Fact]) -> Fact | None:
    try:
        return read()
    except (AssertionError, AttributeError, ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError):
        return None  # no fact is worth a failed run
