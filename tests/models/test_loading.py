"""What the user names is loaded, alike each time; what is wrong is told in one sentence, or by the user's own traceback."""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.models import loading
from bench.models.loading import load
from sparse_models.errors import InputError

MINE = """
import threading
import warnings
import torch
from torch import nn
from torch.nn.utils import prune
import beside_it

def net():
    return nn.Sequential(nn.Linear(3, 2)), torch.randn(4, 3)

def listed():
    return [nn.Sequential(nn.Linear(3, 2)), [torch.randn(4, 3), torch.ones(1)]]

def pruned():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    return model, torch.randn(4, 3)

def helper():
    raise KeyError("of mine")

def locked():
    model, batch = net()
    model.lock = threading.Lock()
    return model, batch

def warning():
    warnings.warn("of mine", DeprecationWarning)
    return net()

def raising(): return helper()
def leaving(): raise SystemExit(2)
def needing(size): return size
def alone(): return nn.Sequential()
def nothing(): return nn.Sequential(), torch.ones(0, 3)
def lazy(): return nn.Sequential(nn.LazyLinear(3)), torch.randn(4, 3)
def numbers(): return nn.Sequential(), [1.0]
def named(): return nn.Sequential(), ({"x": torch.ones(2, 3)},)
def turned(): return torch.ones(2, 3), nn.Sequential()
number = 3
"""


@pytest.fixture
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A working directory with files and a package of the user's."""
    (tmp_path / "beside_it.py").write_text("")
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "broken.py").write_text("def net(:\n")
    (tmp_path / "lacking.py").write_text("import not_there_at_all\n")
    (tmp_path / "a_package").mkdir()
    (tmp_path / "a_package" / "nets.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


pytestmark = pytest.mark.usefixtures("_there")


@pytest.mark.parametrize("reference", ["mine.py:net", "a_package.nets:net", "a_package/nets.py:net"])
def test_a_function_is_found_by_module_and_by_file_and_has_the_same_weights_in_every_process(
    reference: str, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = load(reference)
    assert torch.equal(torch.rand(3), expected)  # the caller's numbers go on as if nothing had been drawn
    loading._load.cache_clear()  # as in another process
    again = load(reference)
    assert again.module is not first.module
    assert torch.equal(first.module.get_parameter("0.weight"), again.module.get_parameter("0.weight"))
    assert torch.equal(first.batch[0], again.batch[0])
    assert load(reference) is again
    assert first.samples == 4


def test_what_the_users_code_warns_of_is_told_and_is_no_error() -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("error")
        assert load("mine.py:warning").samples == 4
    assert [str(one.message) for one in told] == ["of mine"]


def test_what_cannot_be_copied_is_told_with_its_error() -> None:
    with pytest.raises(InputError, match=r"returned a module that copy.deepcopy cannot copy: TypeError:\n"):
        load("mine.py:locked")


def test_several_inputs_are_a_tuple_however_they_are_listed() -> None:
    assert [part.shape for part in load("mine.py:listed").batch] == [(4, 3), (1,)]


def test_a_copy_is_placed_and_whole_numbers_stay_whole() -> None:
    example = load("mine.py:net")._replace(batch=(torch.ones(2, 3), torch.ones(2, dtype=torch.long)))
    placed = example.placed("cpu", torch.bfloat16)
    assert [part.dtype for part in placed.batch] == [torch.bfloat16, torch.long]
    assert {one.dtype for one in placed.module.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in example.module.parameters()} == {torch.float32}


def test_masks_of_torchs_pruning_are_kept_beside_dense_layers() -> None:
    example = load("mine.py:pruned")
    assert set(example.masks) == {"0"}
    assert int(example.masks["0"].sum()) == 3
    assert torch.equal(example.module.get_parameter("0.weight") != 0, example.masks["0"])


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("mine.py", r"expected package.module:function or path/to/file.py:function, got 'mine.py'; "),
        ("mine.py:", "got 'mine.py:'; "),
        ("a-b:net", "got 'a-b:net'; "),
        ("none.py:net", "expected a file at none.py, got none; check the path"),
        ("no_package.nets:net", "that can be imported, got none of the name no_package; "),
        ("a_package.others:net", "that can be imported, got none of the name a_package.others; "),
        ("mine.py:nett", r"expected a known function of mine.py \(net, .*\), got 'nett'; did you mean net\?"),
        ("mine.py:number", "expected a function, got mine.py:number, which is of type int; "),
        ("mine.py:needing", "to take no arguments, got a function with some .*'size'"),
        ("mine.py:alone", "to return a module and an example batch, .* got Sequential; "),
        ("mine.py:numbers", r"to return a module and an example batch, .* got Sequential and list of float; wrap it in"),
        ("mine.py:named", r"got Sequential and tuple of dict; wrap it in a module whose forward takes tensors"),
        ("mine.py:turned", r"got Tensor and Sequential; return model, batch"),
        ("mine.py:nothing", r"whose first dimension is the samples, got one of shape \[0, 3\]; "),
        ("mine.py:lazy", "to return a module with weights, got lazy ones; "),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(reference: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        load(reference)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("reference", "last", "places"),
    [
        ("mine.py:raising", "KeyError: 'of mine'", ["in raising", "in helper"]),
        ("mine.py:leaving", "SystemExit: 2", ["in leaving"]),
        ("lacking.py:net", "ModuleNotFoundError: No module named 'not_there_at_all'", ["in <module>"]),
        ("broken.py:net", "SyntaxError: invalid syntax", []),
    ],
)
def test_where_the_users_code_raises_its_own_traceback_is_shown(reference: str, last: str, places: list[str]) -> None:
    with pytest.raises(InputError) as told:
        load(reference)
    first, *lines = str(told.value).splitlines()
    assert first.startswith(reference)
    assert lines[-1] == last
    frames = [line for line in lines if line.startswith("  File ")]
    assert [frame.rpartition(", ")[2] for frame in frames][-len(places) :] == places or not places
    assert len(frames) == len(places) or not places
    assert all(str(Path.cwd()) in frame for frame in frames)


def test_a_folder_of_the_users_beside_ours_is_not_taken_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "__file__", str(tmp_path / "min" / "loading.py"))
    with pytest.raises(InputError, match="in raising"):
        load(f"{tmp_path / 'mine.py'}:raising")
