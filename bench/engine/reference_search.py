"""Jobs in, the variant in which dense is fastest beside each out: its activations in either layout, or a step compiled.

The reference is chosen once for a whole run, and all its speed-ups hang on it. No process chooses it alone: the clock of one is
off by more than two layouts differ, and by that two runs of one commit had another reference in two cases of five. The variants
are measured as cases are, in pairs and in several fresh processes, before anything else is.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from bench.cases import Case
from bench.engine.jobs import Effort, Job, Results, Spent, Turn
from bench.engine.pairing import Racer
from bench.engine.preparing import at_once, found_out, preparations, together
from bench.engine.processes import Means, measure_all
from bench.engine.timed import SAVED_UP, SHARED
from bench.grids import is_gpu
from bench.runs.outcome import Outcome
from bench.runs.row import Facts
from bench.works.compiled import COMPILED
from bench.works.problems import narrowed
from bench.works.reference import dense_case, first_variant, training_key, variant_key, variants, works_of

PROCESSES = 5  # three of them outvote two that something else disturbed; where three find no gain, they are enough
ON_GPU = 3  # which nothing else uses: its processes agree within a percent or two
VISIT_SECONDS = 0.2  # for six pairs, after which there are no more: the processes differ by more than the pairs of one
SHARE = 1 / 3  # of a run's budget, at most, and as much before it for what all processes need to know
VARIANT_SECONDS, PREPARING_SECONDS = 0.3, 0.5  # for the plan alone: a variant in a process; one thing they need to know
# By how much a variant must beat the first of the layouts to be taken in its place. Of variants that are alike every run then
# takes the same one, and no noise decides; the reference is the slower by that much at most.
CLEARLY = 1.02


def variant_race(case: Case, race: Racer) -> Facts:
    """Race dense in the variant that `case.protocol`, which is free for it, names against dense in the first."""
    reference = case._replace(protocol="-")
    works = [works_of(variant, reference) for variant in (case.protocol, first_variant(reference))]
    race(works[0], works[1], case.device)
    return {}


def to_prepare(case: Case) -> list[Case]:
    """Return what a race needs to be prepared: itself."""
    return [case]


def prepare(case: Case) -> None:
    """Compile what is raced, by as many threads as it is raced by: processes of the search then load it from disk."""
    torch.set_num_threads(case.threads)
    works_of(case.protocol, case._replace(protocol="-"))


def variant_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return a job for each variant, but the first, of each dense reference that the jobs are timed against."""
    raced = dict.fromkeys((dense_case(job.case), variant) for job in jobs for variant in variants(job.case))
    return [
        Job(f"dense {variant} {case.op} {case.id}", __name__, variant_race.__name__, case._replace(protocol=variant))
        for case, variant in raced
    ]


def compiled_jobs(jobs: Sequence[Job]) -> list[Job]:
    """Return a job for each dense step that is raced compiled, and for each narrow one that is timed so where that wins."""
    found = [job for job in variant_jobs(jobs) if job.case.protocol == COMPILED]
    raced = {job.case._replace(protocol="-") for job in found}
    steps = [job.case for job in jobs if job.case.model == "narrow" and job.case.op == "training_step"]
    narrow = dict.fromkeys(dense_case(narrowed(case)) for case in steps if dense_case(case) in raced)
    return [*found, *(found[0]._replace(case=case._replace(protocol=COMPILED)) for case in narrow)]


def in_batches(jobs: Sequence[Job]) -> list[tuple[list[Job], bool]]:
    """Return of which jobs it is found out together what they need, and whether PyTorch compiles for them.

    On a CPU what is compiled comes last, as the compiler is loaded meanwhile. On a GPU all is found out at once, that first
    which takes the longest: what is compiled, and learning rates.
    """
    to_compile = compiled_jobs(jobs)
    if not any(is_gpu(job.case.device) for job in jobs):
        return [(list(jobs), False), (to_compile, True)]
    return [([*to_compile, *sorted(jobs, key=lambda job: job.case.op != "train")], True)]


def fastest(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> dict[str, tuple[str, float]]:
    """Return the variant of each reference, and its speed-up over the first, as a run's processes are to know them.

    A variant that failed is none.
    """
    best: dict[str, tuple[str, float]] = {}
    for job in jobs:
        reference, outcome = job.case._replace(protocol="-"), outcomes[job.name]
        keys = [variant_key(reference), *([training_key(reference)] if job.case.protocol == COMPILED else [])]
        measured = bool(outcome.speedups) and outcome.failure is None
        gain = statistics.median(outcome.speedups) if measured else 0.0
        for key in keys:
            best.setdefault(key, (first_variant(reference), 1.0))
            if gain > max(best[key][1], CLEARLY):
                best[key] = job.case.protocol, gain
    return best


def search_effort(jobs: Sequence[Job], effort: Effort) -> Effort:
    """Return the part of a run's effort that goes into the search for the jobs' fastest variants."""
    processes = min(ON_GPU if all(is_gpu(job.case.device) for job in jobs) else PROCESSES, effort.processes)
    return Effort(processes, math.inf, SHARE * effort.budget, VISIT_SECONDS, beyond=CLEARLY)


def expected_seconds(jobs: Sequence[Job], effort: Effort) -> float:
    """Return about how long all takes that comes before the jobs: what processes need to know, dense's fastest variants."""
    search, needed = search_effort(jobs, effort), preparations(jobs)
    preparing = len(needed) * PREPARING_SECONDS / at_once(together(needed)) if len(needed) > 1 else 0.0
    searching = search.processes * len(variant_jobs(jobs)) * VARIANT_SECONDS
    return min(preparing, search.budget) + min(searching, search.budget)


def measure_against_best(jobs: Sequence[Job], effort: Effort, tell: Callable[[str], None], means: Means) -> Results:
    """Measure the jobs as `measure_all` does, each beside dense in the variant that is found fastest before.

    A broken run that is gone on with keeps the variants by which it measured.
    """
    start = time.monotonic()
    variants, names = variant_jobs(jobs), {job.name for job in jobs}
    has_chosen = means.journal is not None and any(visit.name in names for visit in means.journal.said)
    search, known, spent = search_effort(jobs, effort), dict[str, Any](), Spent()
    if has_chosen:
        search = search._replace(processes=0)
    try:  # of a broken run too, whose journal has only what the processes that timed have found: it is the same each time
        for some, compiled in in_batches(jobs):
            more, seconds = found_out(some, means, start + search.budget, tell, compiled=compiled)
            known, spent = known | more, spent + seconds
    except KeyboardInterrupt:
        return Results({job.name: Outcome() for job in jobs}, interrupted=True, out_of_time=False, spent=spent)
    found = measure_all(variants, search, means, known, label="dense's layouts, ")
    for job in variants:
        failure = found.outcomes[job.name].failure
        if failure is not None:
            tell(f"{job.name}: {failure}; dense is timed in another way")
    if found.interrupted:
        return found._replace(outcomes={job.name: Outcome() for job in jobs})
    if found.out_of_time:
        unknown = sum(not found.outcomes[job.name].races for job in variants)
        tell(f"dense's layouts: the time was over before {unknown} of {len(variants)} were tried; ask for more with --budget")
    left = effort._replace(budget=max(0.0, effort.budget - (time.monotonic() - start)))
    shared = {name: found.known[name] for name in (SHARED, SAVED_UP) if name in found.known}
    results = measure_all(jobs, left, means, known | shared | fastest(variants, found.outcomes))
    turns = (Turn("what all processes need to know", 0, spent), *found.turns, *results.turns)
    return results._replace(spent=spent + found.spent + results.spent, turns=turns)
