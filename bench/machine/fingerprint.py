"""The facts of a machine in, the name of the folder in which its runs are saved out.

What decides a timing and stays the same from run to run: no load, no clock rate of the moment, no host, user or path. The
readable part says the processor, its usable cores, a GPU, PyTorch and Python; six digits at its end stand for all the rest.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

# By their place in `bench.machine.facts`. Settings that only choose among the cases, as a number of threads, are in those.
HARDWARE = (
    *(f"cpu.{fact}" for fact in ("name", "model", "architecture", "logical_cores", "physical_cores", "usable_cores")),
    *("cpu.quota_cores", "cpu.caches", "gpu.name", "gpu.memory_bytes", "gpu.multiprocessors"),
)
SOFTWARE = (
    *("torch.version", "torch.git", "torch.cuda", "torch.cpu_capability", "torch.blas", "torch.mkl", "torch.onednn"),
    *("torch.openmp", "os.name", "gpu.driver", "environment.GOMP_CPU_AFFINITY", "environment.GOMP_SPINCOUNT"),
    *("environment.KMP_BLOCKTIME", "environment.OMP_WAIT_POLICY"),
)


def hardware(facts: Mapping[str, Any]) -> str:
    """Return a name for the hardware alone: runs may be held against each other by the clock only where it is the same."""
    name = _fact(facts, "cpu.name") or _fact(facts, "cpu.model") or _fact(facts, "cpu.architecture")
    cores = _fact(facts, "cpu.usable_cores") or _fact(facts, "cpu.logical_cores")
    return "-".join([*_slugs(name, f"{cores or 'unknown'} cores", _fact(facts, "gpu.name")), _digits(facts, HARDWARE)])


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return the folder's name for hardware and software, as znver3-2cores-torch2.13.0-python3.11-1a2b3c."""
    python = ".".join(str(_fact(facts, "versions.python") or "").split(".")[:2])
    torch = str(_fact(facts, "torch.version") or "").partition("+")[0]
    readable = hardware(facts).rpartition("-")[0]
    other = {"python": python, "hardware": hardware(facts)}
    return "-".join([readable, *_slugs(f"torch{torch}", f"python{python}"), _digits(facts, SOFTWARE, **other)])


def _fact(facts: Mapping[str, Any], place: str) -> Any:
    value: Any = facts
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _digits(facts: Mapping[str, Any], places: tuple[str, ...], **other: str) -> str:
    told = other | {place: _fact(facts, place) for place in places}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:6]


def _slugs(*parts: object) -> list[str]:
    """Return what is known of the parts in characters that every file system and every glob takes as they are."""
    slugs = (re.sub(r"[^A-Za-z0-9.]+", "", str(part))[:40].strip(".") for part in parts if part is not None)
    return [slug for slug in slugs if slug]  # no name begins with what a shell takes for an option or hides
