"""Dense compiled by torch.compile, as one of the ways in which the reference may be fastest."""

import os
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from torch import Tensor

from bench.bench_layer import measure
from bench.cases import Case
from bench.engine.jobs import Effort, Job
from bench.engine.pairing import Plan, Racer
from bench.engine.processes import Means, fork_server_for, measure_all
from bench.works import compiled, once_per_run, reference
from bench.works.compiled import COMPILED, can_compile, compiled_step
from bench.works.reference import dense_reference, variant_key
from bench.works.replays import Works, listed
from sparse_models.errors import GateError
from tests.engine.test_processes import fine
from tests.helpers.processes.commands import output

CASE = Case("training_step", "dense", "dense", "static", "6x8x4b16", 0.0, "cpu", "float32", 1)
STEP = f"""
import torch
from bench.cases import Case
from bench.works.compiled import compiled_step
from bench.works.operations import operation
from bench.works.problems import build, problems
torch.set_num_threads(1)
step, model = compiled_step("6x8x4b16", "cpu", "float32", 1)
parts = problems(Case(*{tuple(CASE)!r}), "dense")
eager = build("dense", parts)
eager_step = operation("training_step", eager, parts, "batch-major")
for _ in range(3):
    torch.testing.assert_close(step(), eager_step())
for mine, its in zip(model.parameters(), eager.parameters(), strict=True):
    torch.testing.assert_close(mine, its)
print("steps agree")
"""


MANY = """
import functools
torch._dynamo.utils.counters.clear()
torch.compile = functools.partial(torch.compile, backend="eager")  # the limit is Dynamo's: what comes after takes long
from bench.works.compiled import compiled_step
for batch in range(2, 12):
    compiled_step(f"3x2b{batch}", "cpu", "float32", 1)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"], "graphs")
"""


def test_whether_dense_can_be_compiled_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    assert not can_compile("cpu")
    monkeypatch.delenv("TORCH_COMPILE_DISABLE")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not can_compile("cpu")
    (tmp_path / "g++").touch(mode=0o755)
    assert can_compile("cpu")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "triton" else name)
    assert not can_compile("cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert can_compile("cuda")


@pytest.fixture(scope="module")
def told() -> str:
    """What a program prints that may compile, and takes seconds to begin."""
    environment = {name: value for name, value in os.environ.items() if name != "TORCH_COMPILE_DISABLE"}
    environment["TORCHINDUCTOR_VEC_ISA_OK"] = "0"  # to try each set of vector instructions takes as long as all else
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TORCH_COMPILE_DISABLE")
        if not can_compile("cpu"):
            pytest.skip("no C++ compiler on this machine")
    command = [sys.executable, "-c", STEP + MANY]
    return output(command, env=environment, cwd=Path(__file__).parents[2])


def test_a_compiled_step_is_the_eager_step(told: str) -> None:
    assert "steps agree" in told


def test_every_shape_of_many_is_compiled(told: str) -> None:
    """Dynamo's own limit is eight for one piece of code, past which it runs eagerly and says nothing."""
    assert "10 graphs" in told


def test_the_control_of_a_compiled_reference_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[object] = []

    def compile_(function: Callable[..., Tensor], **_: object) -> Callable[..., Tensor]:
        compiled.append(function)
        return function

    class Race:
        once = False
        works: tuple[Works, ...] = ()

        def __call__(self, candidate: Works, reference: Works, device: str, plan: Plan | None = None) -> None:
            self.works = (candidate, reference)

    race = Race()
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(reference, "KNOWN", {variant_key(CASE): (COMPILED, 1.1)})
    monkeypatch.setattr("torch.compile", compile_)
    compiled_step.cache_clear()
    assert measure(CASE, race)["dense_layout"] == COMPILED
    compiled_step.cache_clear()
    assert len(compiled) == 2
    own, dense = (listed(works)[0] for works in race.works)
    assert own is not dense


def test_a_compiled_step_that_is_wrong_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_per_run, "KNOWN", {})
    monkeypatch.setattr(reference, "KNOWN", {variant_key(CASE): (COMPILED, 1.1)})
    monkeypatch.setattr("torch.compile", lambda function, **_: lambda *given: 1.001 * function(*given))
    compiled_step.cache_clear()
    with pytest.raises(GateError, match="loss of the chain: expected what the definition says"):
        dense_reference(CASE)
    compiled_step.cache_clear()


def test_a_compiled_step_is_gated_once_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, Any] = {}
    monkeypatch.setattr(once_per_run, "KNOWN", known)
    seen: list[object] = []
    monkeypatch.setattr("bench.works.compiled.gate_loss", lambda *given: seen.append(given))
    monkeypatch.setattr("torch.compile", lambda function, **_: function)
    for _ in range(2):
        compiled_step.__wrapped__("6x8x4b16", "cpu", "float32", 1)
    assert (len(seen), list(known.values())) == (1, [None])
    known[next(iter(known))] = "it was wrong"  # as another process found
    with pytest.raises(GateError, match="it was wrong"):
        compiled_step.__wrapped__("6x8x4b16", "cpu", "float32", 1)


def test_a_gpus_compiler_is_imported_without_its_driver_which_forked_processes_initialise() -> None:
    imported = "import sys, bench.works.compiled as c; c.import_compiler()"
    asked = f"{imported}; print('torch._inductor.compile_fx' in sys.modules, c.is_gpu_in_use())"
    assert output([sys.executable, "-c", asked]) == "True False\n"


@pytest.mark.parametrize(("error", "is_in_use"), [(0, True), (3, False)])  # 3: "the driver is not initialised"
def test_whether_a_gpus_driver_was_initialised_is_asked_of_the_driver(
    error: int, is_in_use: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Mock(cuDeviceGetCount=Mock(return_value=error))
    monkeypatch.setattr("ctypes.CDLL", lambda _: driver)
    assert compiled.is_gpu_in_use() == is_in_use


def test_without_a_driver_no_gpu_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", Mock(side_effect=OSError))
    assert not compiled.is_gpu_in_use()


@pytest.mark.card
def test_processes_forked_from_one_that_has_imported_the_compiler_compile_for_the_card() -> None:
    case = CASE._replace(device="cuda")
    step = Job("", __name__, compiled_steps_loss.__name__, case)
    with closing(fork_server_for([step])) as fork_server:
        outcome = measure_all([step], Effort(2, 1e9, 100.0), Means(fork_server)).outcomes[""]
    assert outcome.failure is None
    assert len(outcome.races) == 2
    assert outcome.facts["is_fork"]


def compiled_steps_loss(case: Case, race: Racer) -> dict[str, Any]:
    """Call a compiled step on the device of the case; what is timed is all the same."""
    step, _ = compiled_step(case.shape, case.device, case.dtype, case.threads)
    assert isinstance(step(), Tensor)
    return fine(case, race) | {"is_fork": os.getpid() == os.getpgid(0) and "torch._inductor.compile_fx" in sys.modules}
