"""One fresh process that times the cases it is told to: JSON in on stdin, a line of JSON out for each case.

Run by bench.processes as `python -m bench.worker`.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from bench.cases import Case
from bench.memo import MEMO
from bench.pairing import Plan, Race, Timer, Work, race
from sparse_models.errors import GateError


class Timed:
    """A Racer that keeps what it timed."""

    once = False

    def __init__(self, timer: Timer) -> None:
        """Time by `timer`."""
        self.timer, self.race = timer, Race([], [])

    def __call__(self, candidate: Work, reference: Work, device: str, plan: Plan | None = None) -> None:
        """Time both works in interleaved pairs."""
        self.race = race(candidate, reference, device, plan, self.timer)


def body_of(module: str, function: str) -> Callable[..., Any]:
    """Return a benchmark body by the names of its module and function."""
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def measure(body: Callable[..., Any], case: Case, timer: Timer) -> dict[str, Any]:
    """Return the pairs and facts of one case, or why it failed: its gate, or whatever else was raised."""
    torch.set_num_threads(case.threads)
    timed = Timed(timer)
    try:
        facts = body(case, timed)
    except GateError as error:
        return {"failure": str(error)}
    except Exception as error:  # one failing case never takes the others down
        return {"failure": f"{type(error).__name__}: {error}"}
    return {"seconds": timed.race.seconds, "dense_seconds": timed.race.dense_seconds, "facts": facts}


def main() -> None:
    """Measure the cases that stdin names, in its order, writing each result as soon as it is there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a layer prints is not a result
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
    asked = json.load(sys.stdin)
    module, _, name = asked["timer"].rpartition(".")
    timer = getattr(importlib.import_module(module), name) if module else time.perf_counter
    MEMO.update(asked["memo"])
    if asked["disable_gc"]:
        gc.disable()
    results.write("\n")  # ready: what dies from here on, dies in a case
    results.flush()
    for number, module, function, values in asked["cases"]:
        known = set(MEMO)
        result = measure(body_of(module, function), Case(*values), timer)
        found = {key: value for key, value in MEMO.items() if key not in known}
        results.write(json.dumps({"case": number, "memo": found, **result}) + "\n")
        results.flush()


if __name__ == "__main__":
    main()
