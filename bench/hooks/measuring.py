"""The part of the plugin that measures: all cases in fresh processes, before pytest reports them one by one."""

import statistics
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from typing import Any

import pytest

from bench.cases import Case
from bench.engine.forkserver import ForkServer
from bench.engine.interleaving import REPORT, Interleaving
from bench.engine.jobs import Effort, Job, Results, Spent, Turn, plan_text
from bench.engine.journal import Journal, broken, identity
from bench.engine.preparing import tuned
from bench.engine.processes import Means, fork_server_for
from bench.engine.reference_search import expected_seconds, measure_against_best, variant_jobs
from bench.engine.timed import SAVED_UP
from bench.findings.step_split import add_splits
from bench.hooks.asked import words_asked
from bench.hooks.progress import Progress
from bench.hooks.screen import fitted, screen_of
from bench.hooks.state import EFFORT, FOLDER, INTERRUPTED, JOURNAL, MACHINE, NOTES, OUTCOMES, ROWS, SELECTION
from bench.machine.bounds import dense_gflops, memory_gb_per_s
from bench.machine.facts import facts
from bench.runs.outcome import Outcome
from bench.runs.row import Row, row_of
from bench.statistics.changes import MIN_PAIRS
from bench.statistics.verdicts import verdicts
from sparse_models.errors import InputError

WORTH_TELLING = 0.01  # of all pairs, or visits
FAR = 2.0  # times the least that a line took: of cores that share a cache it is up to 1.4, of others 5 and more


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Measure all cases in fresh processes, and let pytest then report them one by one."""
    config = session.config
    jobs = [] if config.option.collectonly or config.option.benchmark_disable or session.testsfailed else _jobs(session.items)
    if not jobs:
        return (yield)
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    effort = config.stash[EFFORT]

    progress = Progress(
        lambda text: terminal.write(text, flush=True),
        screen_of(terminal).width if terminal.isatty else None,
        is_quiet=config.get_verbosity() < 0,
    )

    def tell(text: str) -> None:
        progress.clear()
        if config.get_verbosity() >= 0:
            terminal.ensure_newline()
            terminal.write_line("\n".join(fitted(terminal, text)))

    turns = Interleaving()
    if not turns.is_alone:
        effort = effort._replace(least=MIN_PAIRS)
    turns.take("start")
    began = time.monotonic()
    journal = _journal(config, jobs, tell)
    if journal is not None:
        config.stash[JOURNAL] = journal
    devices = config.stash[SELECTION].devices
    known = facts(devices)  # first, for the load that the machine had before
    measured = {
        device: {"dense_gflops": dense_gflops(device), "memory_gb_per_s": memory_gb_per_s(device)} for device in devices
    }
    config.stash[MACHINE] = {**known, "bounds": measured}
    for device, bounds in measured.items():
        tell(f"{device}: {bounds['dense_gflops']:.0f} dense float32 GFLOP/s, {bounds['memory_gb_per_s']:.0f} GB/s copied")
    tell("\n".join([plan_text(jobs, effort, expected_seconds(jobs, effort)), *warned(known["cpu"])]))
    with closing(fork_server_for(jobs)) as fork_server:
        choices, choosing = _choices(config, jobs, fork_server, tell)
        means = Means(
            fork_server,
            str(config.option.benchmark_timer),
            config.option.benchmark_disable_gc,
            progress=progress.show,
            journal=journal,
            turns=turns,
            choices=choices,
        )
        left = effort._replace(budget=max(0.0, effort.budget - (time.monotonic() - began)))
        results = measure_against_best(jobs, left, tell, means)
        results = results._replace(spent=choosing.spent + results.spent, turns=(choosing, *results.turns))
    progress.clear()
    config.stash[INTERRUPTED] = results.interrupted
    if results.out_of_time:
        tell(f"stopped at the budget of {effort.budget:g} s (--budget): what is not narrow enough yet stays as it is")
    tell(f"time: {results.spent}")
    after = facts(devices)  # what the machine did meanwhile: its load, and a GPU's clocks under load
    config.stash[MACHINE]["run"] = {
        "asked": words_asked(config),
        "effort": effort._asdict(),
        "spent_seconds": results.spent._asdict(),
        "turns": [turn.facts for turn in results.turns],
        "kinds": [kind.facts for kind in results.kinds],
        "saved_up_seconds": results.known.get(SAVED_UP, 0.0),
        "after": {"load_average": after["cpu"]["load_average"], "gpu": after["gpu"]},
    }
    config.stash[OUTCOMES] = results.outcomes
    config.stash[ROWS] = _rows(jobs, results.outcomes)
    config.stash[NOTES] += notes_on(results, effort, known["cpu"])
    if results.interrupted:
        tell("interrupted: what was measured so far is reported and saved")
        session.items[:] = [item for item in session.items if _measured(results.outcomes.get(item.nodeid))]
    else:
        turns.take(REPORT)
    answered = yield
    if results.interrupted:
        raise KeyboardInterrupt
    return answered


def _choices(
    config: pytest.Config, jobs: list[Job], fork_server: ForkServer, tell: Callable[[str], None]
) -> tuple[Mapping[str, Any], Turn]:
    """Return the choices of our own kernels' variants that all processes are given, and the time; the run tells of them."""
    start = time.monotonic()
    found = tuned(jobs, fork_server)
    turn = Turn("our own kernels' variants", 0, Spent(building=time.monotonic() - start))
    if found is None:
        return {}, turn
    tell(str(found))
    config.stash[MACHINE]["kernels"] = found.facts
    return found.choices, turn


def _journal(config: pytest.Config, jobs: list[Job], tell: Callable[[str], None]) -> Journal | None:
    folder = config.stash[FOLDER]
    run = identity(folder.name, (job.name for job in [*variant_jobs(jobs), *jobs]))
    if config.option.resume:
        try:
            journal = Journal.resume(folder, run)
        except InputError as error:  # as where a cluster starts a job for the first time
            tell(f"--resume: {error}; measuring from the start")
        else:
            tell(f"going on with a broken run: {len(journal.said)} visits to cases were measured before")
            return journal
    elif broken(folder):
        tell(f"a run was broken off in {folder}: --resume goes on with it, if it is of these very cases and this code")
    try:
        return Journal.start(folder, run)
    except OSError as error:
        tell(f"nothing can be written in {folder} ({error.strerror}): if this run is killed, --resume cannot go on with it")
        return None


def _rows(jobs: list[Job], outcomes: dict[str, Outcome]) -> dict[str, Row]:
    measured = [job for job in jobs if outcomes[job.name].speedups and outcomes[job.name].failure is None]
    told = verdicts({job.name: outcomes[job.name].speedups for job in measured})
    rows = {job.case: row_of(job.case, outcomes[job.name], told[job.name]) for job in measured}
    add_splits(rows)
    return {job.name: rows[job.case] for job in measured}


def notes_on(results: Results, effort: Effort, cpu: Mapping[str, Any]) -> list[str]:
    """Return all that the user is told of how the run went; `cpu` is facts'."""
    outcomes = results.outcomes.values()
    return [*without_a_turn(results, effort, cpu), *disturbed(outcomes), *far_apart(outcomes)]


def without_a_turn(results: Results, effort: Effort, cpu: Mapping[str, Any]) -> list[str]:
    """Return what the user is told of cases for which no time was left, and whether others had the cores; `cpu` is facts'."""
    never = sum(not _measured(outcome) for outcome in results.outcomes.values())
    told = f"{never} of {len(results.outcomes)} cases had no turn in {effort.budget:g} s (--budget)"
    if load := crowded(cpu):
        told += f"; others had the cores as it began, {load}: try again when they are done"
    return [told] if never and results.out_of_time else []


def warned(cpu: Mapping[str, Any]) -> list[str]:
    """Return what the user is told before three minutes are spent where others have the cores; `cpu` is facts'."""
    told = "fewer cases will be decided than when they are done; Ctrl-C keeps what is complete"
    return [f"others have the cores, {load}: {told}"] if (load := crowded(cpu)) else []


def crowded(cpu: Mapping[str, Any]) -> str:
    """Return the load in words where others keep as many cores busy as there are, else nothing; `cpu` is facts'."""
    load, cores = (cpu["load_average"] or [0.0])[0], cpu["usable_cores"] or cpu["logical_cores"] or 1
    return f"a load of {load:.1f} on {cores}" if load >= cores else ""


def disturbed(outcomes: Collection[Outcome]) -> list[str]:
    """Return what the user is told of pairs that do not count, and of cases that have no others."""
    races = [race for outcome in outcomes for race in outcome.races]
    pairs, clean = (sum(map(len, each)) for each in ([race.seconds for race in races], [race.undisturbed for race in races]))
    silent = sum(not outcome.speedups for outcome in outcomes if outcome.races)
    trained = [race for outcome in outcomes if "epochs" in outcome.facts for race in outcome.races]
    epochs = sum(len(race.seconds) - len(race.undisturbed) for race in trained)
    but = f"; {epochs} are epochs, which take what the nearest undisturbed one of their training took" if epochs else ""
    told = []
    if pairs and 1 - clean / pairs >= WORTH_TELLING:
        told.append(f"{1 - clean / pairs:.0%} of all pairs were disturbed by other processes, and do not count{but}")
    if silent:
        are = "1 case is" if silent == 1 else f"{silent} cases are"
        told.append(f"{are} left out, all of whose pairs were: try fewer --threads, or a quieter machine")
    return told


def _measured(outcome: Outcome | None) -> bool:
    return outcome is not None and bool(outcome.races or outcome.failure)


def _jobs(items: list[pytest.Item]) -> list[Job]:
    cases = [item for item in items if isinstance(item, pytest.Function) and "case" in item.fixturenames]
    return [
        Job(
            item.nodeid,
            item.function.__module__,
            item.function.__name__,
            case_of(item),
        )
        for item in cases
        if not item.get_closest_marker("skip")
    ]


def case_of(item: Any) -> Case:
    """Return the case that a parametrized function stands for."""
    return Case(*(item.callspec.params[field] for field in Case._fields))


def far_apart(outcomes: Collection[Outcome]) -> list[str]:
    """Return what the user is told of visits whose threads' cores were farther apart than in others to the same case."""
    near, far = list[float](), list[float]()
    for outcome in outcomes:
        visits = [seconds for race in outcome.races for seconds in race.handovers]
        for seconds in visits:
            (far if seconds > FAR * min(visits) else near).append(seconds)
    share = len(far) / max(1, len(near) + len(far))
    if share < WORTH_TELLING:
        return []
    took = [f"{statistics.median(visits) * 1e9:.0f}" for visits in (far, near)]
    line = f"a cache line took {took[0]} ns from one to the next, and {took[1]} in the others"
    return [f"in {share:.0%} of all visits the threads' cores were far apart ({line}): dense and sparse are both slower there"]
