"""Fresh processes that time the cases they are told to: a line of JSON in on stdin for each, one out for each case.

Run as `python -m bench.engine.worker` by bench.engine.forkserver. It imports PyTorch, which takes two seconds, runs nothing,
and for each line forks a process: one without threads, memory pools and whatever else libraries set up as they run, as if
started anew. Only the addresses of libraries are those of its siblings; what it allocates itself it shifts at random.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which an optimizer imports when it is first built, and which takes as long as all of torch
from threadpoolctl import ThreadpoolController

from bench.cases import Case
from bench.engine.pairing import Patience
from bench.engine.rounds import Timer
from bench.engine.timed import Timed, own_stream, precision_of
from bench.grids import OF_A_NETWORK, is_gpu
from bench.machine.cores import TEAMS
from bench.runs.outcome import Race
from bench.works.compiled import can_compile, import_compiler, is_gpu_in_use, load_compiler
from bench.works.once_per_run import KNOWN, find_once
from bench.works.tuning import call_once, tune
from sparse_models.errors import DivergedError, GateError, InputError
from sparse_models.kernels import choice

FORKS = sys.platform == "linux"  # macOS's own libraries do not bear it
COMPILING = ("training_step", "train", *OF_A_NETWORK)  # of which dense compiled is a variant
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of Linux's prctl
ENDING_SECONDS = 0.2  # for a compiler to remove what it has written half, which would be loaded the next time
MESSAGE = 500  # characters of what a failure says: a compiler tells its own in a thousand lines
AGAIN_SECONDS = 0.1  # in the rounds of a visit to a case that has had one: it is one of the noisy ones


def body_of(module: str, function: str) -> Callable[..., Any]:
    """Return a benchmark body by the names of its module and function."""
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]


def measure(
    module: str, function: str, case: Case, timer: Timer, patience: Patience, *, energy: bool = False
) -> dict[str, Any]:
    """Return the pairs and facts of one case, or why it failed: its gate, or whatever else was raised."""
    start = time.perf_counter()
    limit_threads(case.threads)
    timed = Timed(case, timer, patience, energy=energy)
    try:
        with own_stream(case.device):
            facts = body_of(module, function)(case, timed)
        pools = find_once(f"pools {case.threads}", lambda: thread_pools(case.threads))
    except (GateError, InputError, DivergedError) as error:
        return {"failure": str(error), "spoiled": timed.is_spoiled or is_gpu(case.device)}
    except Exception as error:  # one failing case never takes the others down: a GPU's error may stay with the process
        return {"failure": failure_of(error), "spoiled": is_gpu(case.device)}
    finally:
        TEAMS.release()
    seconds = {"whole": time.perf_counter() - start, "raced": timed.raced, "timed": timed.race.timed}
    # The facts that are kept are those of the first visit, which compiles, gates and looks at memory: a row tells what it cost.
    told_facts = {**facts, **timed.facts, "pools": pools, "first_visit_seconds": seconds["whole"]}
    told = {"race": timed.race, "facts": told_facts, "spent": seconds}
    return {**told, "spoiled": True} if timed.is_spoiled else told


def failure_of(error: Exception) -> str:
    """Return what was raised in a line: the first of its message, or where it was raised if it has none."""
    message = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if message:
        return f"{type(error).__name__}: {message[:MESSAGE]}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {last.name}, {Path(last.filename).name} line {last.lineno}"


def limit_threads(threads: int) -> None:
    """Hold torch and every thread pool that the process has loaded to `threads`; one loaded later has its environment."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
        ThreadpoolController().limit(limits=threads)


def thread_pools(threads: int) -> str:
    """Return the pools that are loaded, as in "libgomp 2"; raises InputError where one has more than `threads`."""
    pools = {pool["prefix"]: int(pool["num_threads"]) for pool in ThreadpoolController().info()}
    for name, size in pools.items():
        if size > threads:
            raise InputError(f"expected every thread pool to keep to {threads} threads, got {size} in {name}; limit it")
    return ", ".join(f"{name} {size}" for name, size in sorted(pools.items()))


def visits(cases: list[Any], patience: Patience, seconds: float) -> Iterator[tuple[int, dict[int, Race]]]:
    """Yield the numbers of the cases, each with the pairs of all cases so far, for the caller to add to or to delete from.

    All come once. Then those whose pairs do not agree yet come again, and again, until `seconds` are over: what disturbs a
    visit has often passed at the next, and every visit builds its works anew, elsewhere in memory.
    """
    end = time.monotonic() + seconds
    visited = {number: Race([], []) for number in range(len(cases))}
    waiting = list(visited)
    while waiting:
        for number in waiting:
            if visited[number].seconds and time.monotonic() > end:
                return
            yield number, visited
        # A training is one whole, and is not taken up again.
        waiting = [
            number
            for number, pairs in visited.items()
            if Case(*cases[number][2]).op != "train" and not patience.is_satisfied(pairs)
        ]


def tuned(cases: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the variants and plans of our own kernels that cases need, and which of them were measured just now."""
    before = set(choice.known())

    def call(case: Case) -> None:
        with contextlib.suppress(Exception):  # what fails is met again, and told, when the case is timed
            limit_threads(case.threads)
            with own_stream(case.device), precision_of(case.dtype):
                call_once(case)

    tune([Case(*values) for values in cases], call)
    needed = choice.in_use()
    yield {"choices": choice.plain(needed), "measured": sorted(needed.keys() - before)}


def serve(asked: dict[str, Any], say: Callable[..., None]) -> None:
    """Time the cases that are asked for, in their order, and say each result as soon as it is there."""
    if "call" in asked:  # something else than cases, by its module and name
        say(process=os.getpid())
        module, function, arguments = asked["call"]
        for said in body_of(module, function)(*arguments):
            say(**said)
        return
    choice.hold(asked.get("choices", {}))
    module, _, name = asked["timer"].rpartition(".")
    timer = getattr(importlib.import_module(module), name) if module else time.perf_counter
    patience = Patience(*asked["patience"])
    KNOWN.update(asked["known"])
    if asked["disable_gc"]:
        gc.disable()
    say(process=os.getpid())  # ready: what dies from here on, dies in a case
    for number, visited in visits(asked["cases"], patience, asked["seconds"]):
        module, function, values = asked["cases"][number]
        before = dict(KNOWN)
        say(begin=number)
        once_more = patience._replace(seconds=max(patience.seconds, AGAIN_SECONDS)) if visited[number].seconds else patience
        result = measure(module, function, Case(*values), timer, once_more, energy=asked.get("energy", False))
        if "race" in result:
            visited[number] = visited[number].joined(result["race"])
        else:
            del visited[number]
        say(
            case=number,
            known={key: value for key, value in KNOWN.items() if key not in before or before[key] != value},
            **result,
        )
        if result.get("spoiled"):
            return


def ended(process: int) -> int:
    """Return how a forked process ended, once nothing is left either of what it has started: a compiler would run on."""
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with contextlib.suppress(ProcessLookupError, ChildProcessError):
        os.killpg(process, signal.SIGTERM)
        time.sleep(ENDING_SECONDS)
        os.killpg(process, signal.SIGKILL)
        while True:
            os.waitpid(-process, 0)
    return code


def main() -> None:
    """Fork a process for each line of stdin, and say with what code it ended; where forks are not safe, serve one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the process that asks decides
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a layer prints is not a result
    warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta state", UserWarning)
    if FORKS:
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)  # for `ended`
    gc.freeze()  # or collecting garbage would copy to each process what was imported

    def say(**what: Any) -> None:
        try:
            results.write(json.dumps(what) + "\n")
            results.flush()
        except BrokenPipeError:  # nobody listens any more, so this process waits for nothing that it has started
            os._exit(1)

    for line in sys.stdin:
        asked = json.loads(line)
        for module in {case[0] for case in asked["cases"]}:
            with contextlib.suppress(Exception):  # it is met again, and told, in the first of the module's cases
                importlib.import_module(module)
        cases = [Case(*values) for _, _, values in asked["cases"]]
        on_gpu, compiles = any(is_gpu(case.device) for case in cases), any(case.op in COMPILING for case in cases)
        if on_gpu and compiles and can_compile("cuda"):
            import_compiler()
        is_compiling = bool(asked.get("compiles") or compiles) and not on_gpu and can_compile("cpu")
        if is_compiling and not asked.get("meanwhile"):
            load_compiler()
        can_fork = FORKS and not (on_gpu and is_gpu_in_use())
        process = os.fork() if can_fork else 0
        if process == 0:
            # As much as a fresh layout of addresses would, on the heap and where large tensors are mapped.
            _unused = [bytearray(random.SystemRandom().randrange(most)) for most in (2**16, 2**24)]
            os.setpgid(0, 0)  # with whatever it starts, to be killed as a whole
            serve(asked, say)
            os._exit(0)  # all is said, and taking PyTorch down in order costs a quarter of a second
        if is_compiling:  # while the process is at something else, for those forked later
            load_compiler()
        say(exit=ended(process))


if __name__ == "__main__":
    main()
