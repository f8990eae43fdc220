"""Masks of one's own are read from a file by the names of layers or weights, and what does not fit is told."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bench.models import selected
from bench.models.layers import inspect
from bench.models.loading import Example
from bench.models.masks import read_masks
from bench.models.selected import own_model, sparsity_of
from sparse_models.errors import AbsentError, InputError
from tests.strategies import masks

LAYERS = {"a.0": nn.Linear(3, 2), "b": nn.Linear(4, 5)}
LAYERS["again"] = LAYERS["b"]


@given(masks((2, 3)), masks((5, 4)), st.sampled_from(["", ".weight"]), st.sampled_from([bool, np.float32, np.uint8]))
def test_what_was_written_is_read(tmp_path_factory: Any, first: Any, second: Any, end: str, dtype: Any) -> None:
    path = tmp_path_factory.mktemp("masks") / "m.npz"
    np.savez(path, **{f"a.0{end}": first.numpy().astype(dtype), "b": second.numpy().astype(dtype)})
    found = read_masks(path, LAYERS)
    assert list(found) == ["a.0", "b"]
    assert torch.equal(found["a.0"], first)
    assert torch.equal(found["b"], second)
    assert found["b"].dtype == torch.bool


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"c": np.ones((2, 3))}, r"expected a known layer that can be sparse \(a.0, b, again\), got 'c'; "),
        ({"a.0.bias": np.ones(2)}, "got 'a.0.bias'; "),
        ({"b": np.ones((4, 5))}, r"b: expected a mask of shape \[5, 4\], as the weight has, got \[4, 5\]; "),
        ({"b": np.full((5, 4), 0.5)}, "b: expected a mask of True and False, or of 1 and 0, got other numbers; "),
        ({"again": np.ones((5, 4)), "b": np.ones((5, 4))}, "expected one mask of a layer, got two of again, the other as b; "),
        (
            {"b": np.ones((5, 4)), "b.weight": np.ones((5, 4))},
            "expected one mask of a layer, got two of b, the other as b.weight; ",
        ),
        ({}, "expected masks by the names of layers, got an empty file; "),
        ({"b": np.array(["x"])}, "expected arrays in .*, got none that can be read"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_in_one_sentence(arrays: Any, said: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(InputError, match=said) as told:
        read_masks(tmp_path / "m.npz", LAYERS)
    assert "\n" not in str(told.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a file at .*none.npz, got none; "):
        read_masks(tmp_path / "none.npz", LAYERS)
    (tmp_path / "m.npz").write_text("no archive")
    with pytest.raises(InputError, match=r"expected arrays in .*, got none that can be read"):
        read_masks(tmp_path / "m.npz", LAYERS)
    with pytest.raises(InputError, match=r"expected a file of masks \(.npz, .safetensors\), got "):
        read_masks(tmp_path / "m.pt", LAYERS)


def test_safetensors_are_read_where_the_package_is_and_asked_for_where_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.safetensors"
    path.write_text("")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(AbsentError, match=r"expected the package safetensors, .*; pip install safetensors"):
        read_masks(path, LAYERS)
    stand_in: Any = SimpleNamespace(load_file=lambda path: {"b.weight": torch.ones(5, 4)})
    monkeypatch.setitem(sys.modules, "safetensors", SimpleNamespace(torch=stand_in))
    monkeypatch.setitem(sys.modules, "safetensors.torch", stand_in)
    assert read_masks(path, LAYERS)["b"].all()


def test_a_selection_has_the_sparsities_of_masks_by_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(shared), shared, nn.Linear(4, 2))
    example = Example(net, (torch.ones(3, 4),))
    monkeypatch.setattr(selected, "load", lambda _: example)
    monkeypatch.setattr(selected, "inspected", lambda reference: inspect(reference, example))
    kept = np.zeros((4, 4), dtype=bool)
    kept[0] = True
    arrays: dict[str, Any] = {"0": kept, "1.0.weight": np.ones((4, 4))}
    np.savez(tmp_path / "m.npz", **arrays)
    own, found = own_model("a:net", str(tmp_path / "m.npz"))
    assert own.sparsities == (("4x4b3", (0.0, 0.75)),)
    assert own.sparsity == 12 / 32
    assert own.mask == str(tmp_path / "m.npz")
    assert {layer.name for layer in found.layers if layer.names == ("2", "1.0")} == {"2"}
    assert set(selected.masks_of("a:net", own.mask)) == {"0", "2"}  # by the first of their names
    plain, _ = own_model("a:net")
    assert (plain.mask, plain.sparsity, plain.sparsities) == ("-", None, ())


def test_a_file_for_advise_is_read_where_linear_layers_alone_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = Example(nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2)), (torch.ones(3, 1, 2, 2),))
    monkeypatch.setattr(selected, "load", lambda _: example)
    monkeypatch.setattr(selected, "inspected", lambda reference: inspect(reference, example))
    monkeypatch.chdir(tmp_path)
    arrays: dict[str, Any] = {"0": np.ones((2, 1, 1, 1)), "2": np.eye(2, 8)}
    np.savez("m.npz", **arrays)
    assert set(selected.given_masks("a:net", "m.npz")) == {"0", "2"}
    own, _ = own_model("a:net", "m.npz")
    assert own.sparsity == 14 / 16
    np.savez("m.npz", **{"0": arrays["0"]})
    with pytest.raises(InputError, match=r"m.npz: expected a mask of an nn.Linear, got those of convolutions alone; "):
        own_model("a:net", "m.npz")


@given(st.lists(masks(), min_size=1, max_size=3))
def test_the_sparsity_of_masks_is_that_of_all_together(several: list[Any]) -> None:
    entries = torch.cat([mask.flatten() for mask in several])
    assert sparsity_of(*several) == pytest.approx(1 - float(entries.double().mean()), abs=1e-4)
