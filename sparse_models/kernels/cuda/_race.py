"""Which of a kernel's plans is fastest on the card at hand: those that a rule ranks best race each other, once for a class."""

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparse_models.kernels import race
from sparse_models.kernels.asynchronous import is_asynchronous, is_captured
from sparse_models.kernels.choice import plan_for
from sparse_models.kernels.race import Call, V
from sparse_models.kernels.variant import Choice

MOST = 4  # candidates, for each is compiled: on an H100 the next ranks hardly ever had a faster one
EACH = 2  # launches for each call of a round on a CPU: a card's clock ticks in half microseconds
CYCLES, MOST_CYCLES = 2**20, 2**27  # of a card, that it waits: half a millisecond, and a tenth of a second at most
KERNELS = Path(__file__).parent.parent
DRIVER = Path("/proc/driver/nvidia/version")


class Stopwatch:
    """A card's own clock, for launches one behind the other: the card waits until all are queued, so that no host is timed."""

    def __init__(self) -> None:
        """Begin with a short wait, which gets as long as the launches take."""
        self.cycles = CYCLES

    def __call__(self, call: Callable[[], Any], calls: int) -> float:
        """Return the seconds of a call."""
        events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        begin, end = events
        while True:
            torch.cuda._sleep(self.cycles)  # noqa: SLF001  # PyTorch has no public name for it
            begin.record()
            for _ in range(calls * EACH):
                call()
            end.record()
            has_begun = begin.query()
            end.synchronize()
            if not has_begun or self.cycles >= MOST_CYCLES:
                return float(begin.elapsed_time(end)) / 1e3 / (calls * EACH)
            self.cycles *= 2


def chosen(
    kernel: str, sizes: tuple[int, ...], batch: int, nnz: int, x: Tensor, candidates: Callable[[], Sequence[V]], call: Call[V]
) -> V:
    """Return the plan of a kernel for x: on a card measured by way of `call` where nothing is known of its class.

    It is the first of the candidates unless another is clearly faster; and where x is on no card, or while a CUDA graph that
    would hold the race is captured, what is known or the first.
    """
    if not is_asynchronous(x):
        return candidates()[0]

    def on_its_card(tried: Sequence[V], call: Call[V]) -> Choice | None:
        with torch.cuda.device_of(x):
            return raced(tried, call)

    asked = kernel, sizes, batch, nnz, x.dtype
    return plan_for(asked, card_name(x.device), candidates, None if is_captured(x) else call, on_its_card)


def raced(candidates: Sequence[V], call: Call[V]) -> Choice | None:
    """Return which of some plans is the fastest; one that the card, or a compiler, refuses is left out, but for the first.

    None where memory has room for a result, and not for those that are compared.
    """
    with contextlib.suppress(torch.OutOfMemoryError):
        able = [candidates[0], *(plan for plan in candidates[1:MOST] if _is_launched(call, plan))]
        return race.measured(able, call, Stopwatch())
    return None


def _is_launched(call: Call[V], plan: V) -> bool:
    try:
        call(plan)
    except torch.OutOfMemoryError:  # which says nothing of the plan
        raise
    except Exception:  # of a compiler or a driver, each has its own
        return False
    return True


@cache
def card_name(device: torch.device) -> str:
    """Return a card by its name and capability, with what else decides how fast plans are there: software, in a few digits."""
    if device.type != "cuda":
        return "no card"
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return f"{torch.cuda.get_device_name(device)} ({capability}), {software()}"


@cache
def software() -> str:
    """Return a hash of the driver, PyTorch, the compilers and the kernels' sources: with others plans are measured anew."""
    told = [torch.__version__, DRIVER.read_text(encoding="utf-8") if DRIVER.exists() else ""]
    told += [_version(name) for name in ("triton", "cuda-bindings")]
    digest = hashlib.sha256(" ".join(told).encode())
    for file in sorted([*KERNELS.glob("cuda/*"), *KERNELS.glob("triton/*.py")]):
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def _version(package: str) -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version(package)
    return ""
