import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import grids
from bench.cases import cases
from bench.engine.jobs import Effort
from bench.hooks.options import add_options, read_effort, read_options
from bench.machine.facts import has_bfloat16
from bench.selection import Selection
from bench.works.trained.experiment import settings_of
from sparse_models.data import DATA
from sparse_models.layers import LAYERS
from sparse_models.loading import FORMS
from sparse_models.updates import UPDATES
from tests.helpers.processes import commands

ROOT = Path(__file__).parents[2]
KNOWN = ", ".join(LAYERS)


def config(**options: str) -> Any:
    """A pytest configuration, as far as options go."""
    known: dict[str, str | None] = {}
    add_options(SimpleNamespace(addoption=lambda name, **_: known.__setitem__(name, None)))
    given = {f"--{name}": value for name, value in options.items()}
    assert set(given) <= set(known)
    return SimpleNamespace(getoption=(known | given).__getitem__, args=["bench"])


def read(**options: str) -> Selection:
    """What the command line would be read as."""
    return read_options(config(**options))


def read_all(**options: str) -> tuple[Selection, Effort]:
    """What the plugin reads of the command line."""
    return read_options(config(**options)), read_effort(config(**options))


def test_effort_has_defaults_and_takes_numbers() -> None:
    assert read_effort(config()) == Effort(processes=12, precision=0.05, budget=170.0)
    assert read_effort(config(processes="3", precision="0.1", budget="10")) == Effort(3, 0.1, 10.0)


def test_nothing_given_is_everything_at_its_default() -> None:
    selection = read()
    assert selection == Selection(
        ops=grids.DEFAULT_OPS, layers=None, updates=None, shapes=None, sparsities=None,
        devices=("cuda",) if torch.cuda.is_available() else ("cpu",), dtypes=None, threads=(torch.get_num_threads(),),
        regimes=None,
        data=None, protocols=None, seeds=8, rivals=("bfloat16",) if has_bfloat16() else (),
    )  # fmt: skip


def test_lists_are_separated_by_commas_and_doubles_said_once() -> None:
    selection = read(layer="csr, masked,csr", sparsity="0,.5,1", shape="3x4b5,03x4b5", threads="1", op="train,forward")
    assert selection.layers == ("csr", "masked")
    assert selection.sparsities == (0, 0.5, 1)
    assert selection.shapes == ("3x4b5",)
    assert selection.ops == ("train", "forward")
    assert selection.threads == (1,)
    assert read(skew="0,.25").skews == (0.0, 0.25)
    assert read(zeros="0,.9").zeros == (0.0, 0.9)


SHAPE = "expected a shape like 256x128b64 (input, output and batch sizes, each at least 1)"


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("sparsity", "1.2", "expected a sparsity (fraction of zeros) between 0 and 1, got 1.2; 80 % sparse is 0.8"),
        ("sparsity", "0.5,high", "expected a sparsity (fraction of zeros) between 0 and 1, got high; 80 % sparse is 0.8"),
        ("sparsity", "nan", "expected a sparsity (fraction of zeros) between 0 and 1, got nan; 80 % sparse is 0.8"),
        ("layer", "cssr", f"expected a known layer ({KNOWN}), got 'cssr'; did you mean csr?"),
        ("layer", "", f"expected a known layer ({KNOWN}), got ''; nothing like it is here"),
        ("op", "forwards", f"expected a known operation ({', '.join(grids.OPS)}), got 'forwards'; did you mean forward?"),
        ("layer", "2:4", f"expected a known layer ({KNOWN}), got '2:4'; nothing like it is here"),
        ("update", "grasp", f"expected a known update rule ({', '.join(UPDATES)}), got 'grasp'; nothing like it is here"),
        ("shape", "0x3b1", f"{SHAPE}, got '0x3b1'; more sizes make an MLP, as in 100x256x256x10b4096"),
        ("dtype", "int8", f"expected a known dtype ({', '.join(grids.DTYPES)}), got 'int8'; nothing like it is here"),
        ("device", "tpu", "expected cpu, cuda or auto, got 'tpu'; check the spelling"),
        ("threads", "0", "expected a whole number from 1 to 999999, got '0'; for example 3"),
        ("threads", "-1", "expected a whole number from 1 to 999999, got '-1'; for example 3"),
        ("data", "cifar", f"expected a known data set ({', '.join((*DATA, *FORMS))}), got 'cifar'; nothing like it is here"),
        ("protocol", "fair", "expected a known protocol (seed, tuned), got 'fair'; nothing like it is here"),
        ("seeds", "1,2", "expected a whole number from 1 to 1000, got '1,2'; for example 3"),
        ("threads", "9" * 5000, f"expected a whole number from 1 to 999999, got '{'9' * 5000}'; for example 3"),
        ("processes", "0", "expected a whole number from 1 to 1000, got '0'; for example 3"),
        ("processes", "1001", "expected a whole number from 1 to 1000, got '1001'; for example 3"),
        ("precision", "nan", "expected a number above 0, got 'nan'; for example 0.05"),
        ("budget", "-1", "expected a number above 0, got '-1'; for example 0.05"),
        ("budget", "1e999", "expected a number above 0, got '1e999'; for example 0.05"),
        ("skew", "-0.5", "expected a number above 0, got '-0.5'; for example 0.05"),
        ("regime", "hot", f"expected a known regime ({', '.join(grids.REGIMES)}), got 'hot'; nothing like it is here"),
        ("precision", "soon", "expected a number above 0, got 'soon'; for example 0.05"),
        ("epochs", "0", "expected a whole number from 1 to 999999, got '0'; for example 3"),
        ("interval", "often", "expected a whole number from 1 to 999999, got 'often'; for example 3"),
        ("seeds", "many", "expected a whole number from 1 to 1000, got 'many'; for example 3"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_one_sentence(option: str, value: str, sentence: str) -> None:
    with pytest.raises(pytest.UsageError) as error:
        read_all(**{option: value})
    assert str(error.value) == f"--{option}: {sentence}"


INSTALLS = {"sparselab": "pip install sparselab==", "sparseprop": "pip install --no-build-isolation sparseprop=="}


def test_without_its_package_a_layer_is_unknown_and_the_error_says_what_to_install() -> None:
    block = (
        f"import sys, pytest; names = {list(INSTALLS)}; sys.modules.update(dict.fromkeys(names))\n"
        "sys.exit(str([int(pytest.main(['bench', '--layer', name])) for name in names]))"
    )
    done = commands.run([sys.executable, "-c", block], cwd=ROOT)
    *told, codes = done.stderr.splitlines()
    assert codes == str([int(pytest.ExitCode.USAGE_ERROR)] * len(INSTALLS)), done.stderr
    known = ", ".join(layer for layer in LAYERS if layer not in INSTALLS)
    for name, install in INSTALLS.items():
        start = f"ERROR: --layer: expected a known layer ({known}), got {name!r}; {install}"
        assert any(line.startswith(start) for line in told), done.stderr


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(pytest.UsageError, match=r"expected at most \d+ threads, .* got 100000; ask for fewer"):
        read(threads="100000")


def test_cuda_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(pytest.UsageError, match="expected a CUDA device, got none"):
        read(device="cuda")
    assert read(device="auto").devices == ("cpu",)


@pytest.mark.parametrize("options", [{"layer": "dense"}, {"update": "static"}])
def test_an_operation_left_without_cases_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(pytest.UsageError, match="got none for update; update needs a sparse layer and a rule that moves"):
        read(op="forward,update", **options)
    assert read(**options)


@pytest.mark.parametrize("ops", ["train", "update,train"])
def test_a_rule_without_a_layer_whose_masks_it_moves_is_refused(ops: str) -> None:
    for layers in ({}, {"layer": "tiled,csr"}):
        with pytest.raises(pytest.UsageError, match="expected layers whose masks srigl moves, got none; add --layer fan_in"):
            read(op=ops, update="rigl,srigl", **layers)
    assert read(op=ops, update="rigl,srigl", layer="tiled,fan_in").updates == ("rigl", "srigl")


@pytest.mark.parametrize(("quota", "told"), [(None, 2), (8.0, 2), (1.5, 1), (0.5, 1), (2.0, 2)])
def test_by_default_no_more_threads_run_than_a_quota_of_cpu_time_allows(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, told: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr("bench.hooks.values.quota_cores", lambda: quota)
    assert read().threads == (told,)


@pytest.mark.parametrize("option", ["regime", "skew"])
def test_what_trainings_do_not_follow_is_refused_for_them_alone(option: str) -> None:
    value = {"regime": "cold", "skew": "0.5"}[option]
    with pytest.raises(pytest.UsageError, match=f"--{option}: expected an operation that takes it, got train alone"):
        read(op="train", **{option: value})
    assert read(op="train,forward", **{option: value}).ops == ("train", "forward")


def test_a_shape_that_fits_no_data_is_refused_for_trainings_alone() -> None:
    for data, needed in (
        ({}, "64 and 10 for digits"),
        ({"data": "teacher,digits"}, "100 and 10 for teacher, 64 and 10 for digits"),
    ):
        with pytest.raises(pytest.UsageError) as refused:
            read(op="train", shape="64x30x10b8,64x9b8,100x20b8", **data)
        assert str(refused.value) == (
            f"--shape: expected the first and last sizes of a data set to train on ({needed}), got 64x9b8, 100x20b8; "
            "change them, or choose --data"
        )
    assert read(op="train", shape="64x30x10b8").shapes == ("64x30x10b8",)
    assert read(op="train,forward", shape="64x9b8").ops == ("train", "forward")


def test_trainings_are_as_long_and_their_masks_move_as_often_as_asked() -> None:
    selection = read(op="train", epochs="7", interval="50")
    found = list(cases("train", selection))
    assert {(case.asked_epochs, case.asked_interval) for case in found} == {(7, 50)}
    assert all(case.id.endswith("-epochs7-interval50") for case in found)
    assert {(settings_of(case).epochs, settings_of(case).update_interval) for case in found} == {(7, 50)}
    own = next(cases("train", read(op="train", data="digits")))
    assert (settings_of(own).epochs, settings_of(own).update_interval) == (10, grids.UPDATE_INTERVAL)
