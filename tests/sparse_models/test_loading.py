"""Users' own data: read, checked in one sentence, split by a fixed seed, standardised on the training part."""

import sys
import warnings
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models import loading
from sparse_models.data import DATA
from sparse_models.errors import AbsentError, InputError
from sparse_models.loading import from_file, from_openml, is_own, load, own_data
from tests.strategies import normal, seeds


def samples(count: int = 50, features: int = 3, classes: int = 4) -> dict[str, Any]:
    return {"x": normal(0, count, features).numpy() * 7 + 2, "y": np.arange(count) % classes}


def written(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@given(seeds, st.integers(10, 60), st.integers(1, 5))
def test_every_sample_is_in_one_part_and_the_training_part_is_standardised(seed: int, count: int, features: int) -> None:
    x, y = normal(seed, count, features) * 9 - 4, torch.arange(count) % 2
    x[:, 0] = 5.0  # a constant
    found = own_data(x.numpy(), y.numpy(), "mine")
    assert [len(part.labels) for part in found[:3]] == [count - 2 * (count // 5), count // 5, count // 5]
    assert found.classes == 2
    train = found.train.inputs.double()
    torch.testing.assert_close(train.mean(0), torch.zeros(features, dtype=torch.float64), rtol=0, atol=1e-6)
    spread = torch.ones(features, dtype=torch.float64)
    spread[0] = 0
    torch.testing.assert_close(train.std(0, correction=0), spread, rtol=0, atol=1e-6)
    # One line maps each feature back, in all parts alike: by it they are the samples that were given, each once.
    back = torch.cat([part.inputs for part in found[:3]]).double()
    labels = torch.cat([part.labels for part in found[:3]])
    for feature in range(1, features):
        scaled, original = back[:, feature].sort(), x[:, feature].sort()
        slope, offset = np.polyfit(scaled.values, original.values, 1)
        torch.testing.assert_close(scaled.values * slope + offset, original.values, rtol=0, atol=1e-4)
        assert torch.equal(labels[scaled.indices], y[original.indices])


def test_a_file_is_read_and_split_the_same_every_time(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.npz", **samples())
    first, second = from_file(path), from_file(path)
    assert all(
        torch.equal(a, b) for one, other in zip(first[:3], second[:3], strict=True) for a, b in zip(one, other, strict=True)
    )
    assert first.train.inputs.dtype == torch.float32
    assert first.train.labels.dtype == torch.int64
    assert load(str(path)) is load(str(path))
    assert is_own(str(path))
    assert not any(map(is_own, DATA))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"x": np.zeros(50)}, r"expected x \[samples, features\] and y \[samples\], got \[50\] and \[50\]; reshape"),
        ({"x": np.zeros((50, 2, 2))}, r"got \[50, 2, 2\] and \[50\]; reshape"),
        ({"x": np.zeros((50, 0))}, r"got \[50, 0\] and \[50\]; reshape"),
        ({"y": np.zeros(49, int)}, r"got \[50, 3\] and \[49\]; reshape"),
        ({"x": np.full((50, 3), np.nan)}, "expected finite numbers in x, got 150 that are not"),
        ({"x": np.full((50, 3), 1e300)}, "expected finite numbers in x, got 150 that are not"),
        ({"x": np.full((50, 3), "a")}, "expected numbers in x, got <U1"),
        ({"x": np.full((50, 3), 1j)}, "expected numbers in x, got complex128"),
        ({"y": np.linspace(0, 1, 50)}, "expected whole numbers in y, got float64"),
        ({"y": np.arange(50) % 4 + 1}, "expected labels 0, 1 and so on, each at least once, got 4 from 1 to 4; number"),
        ({"y": np.arange(50) % 2 * 2}, "got 2 from 0 to 2; number"),
        ({"y": np.arange(50) % 2 - 1}, "got 2 from -1 to 0; number"),
        ({"y": np.zeros(50, int)}, "got 1 from 0 to 0; number"),
        ({"x": np.ones((4, 3)), "y": np.arange(4)}, "expected at least 5 samples, got 4; add some"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_one_sentence(tmp_path: Path, changed: dict[str, Any], told: str) -> None:
    path = written(tmp_path / "mine.npz", **samples() | changed)
    with pytest.raises(InputError, match=told) as refused:
        from_file(path)
    assert str(refused.value).startswith(str(path))
    assert "\n" not in str(refused.value)


def test_a_file_that_is_none_of_ours_is_refused_in_one_sentence(tmp_path: Path) -> None:
    bad, objects, other = (tmp_path / f"{name}.npz" for name in ("bad", "objects", "other"))
    bad.write_bytes(b"PK\x03\x04 and no more")
    np.savez(objects, x=np.array([[{}]], dtype=object), y=np.zeros(1, int))
    np.savez(other, inputs=np.zeros(3))
    alone = tmp_path / "alone.npz"
    with alone.open("wb") as file:
        np.save(file, np.zeros(3))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(written(tmp_path / "whole.npz", **samples()).read_bytes()[:-200])
    for path in (bad, objects, alone, cut, tmp_path / "none.npz", tmp_path):
        with pytest.raises(InputError, match=r"expected a file that numpy.savez wrote at .*; check the path") as refused:
            from_file(path)
        assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=r"expected arrays x and y in .*other.npz, got inputs; write it by numpy.savez"):
        from_file(other)


def fetched(monkeypatch: pytest.MonkeyPatch, result: Any) -> None:
    """Have scikit-learn's fetcher return a result, or raise it."""

    def fetch(name: str, **options: Any) -> Any:
        assert options == {"as_frame": False, "return_X_y": True, "parser": "liac-arff"}
        warnings.warn("Multiple active versions of the dataset exist", UserWarning, stacklevel=1)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr("sklearn.datasets.fetch_openml", fetch)


def test_classes_of_openml_are_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = samples(classes=2)
    names = np.array(["no", "yes"], dtype=object)[arrays["y"]]
    fetched(monkeypatch, (arrays["x"], names))
    by_name, by_number = from_openml("credit-g"), own_data(arrays["x"], arrays["y"], "numbered")
    for one, other in zip(by_name[:3], by_number[:3], strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (
            URLError("Name or service not known"),
            "expected to reach OpenML for 'iris'.*got <urlopen error Name.*; fetch it once",
        ),
        (ValueError("No known data set\nmore"), r"expected one of OpenML's data sets, got 'iris' \(No known data set\); see"),
        ((np.zeros((9, 2)), np.linspace(0, 1, 9)), "openml:iris: expected one class a sample, got other targets"),
        ((np.zeros((9, 2)), None), "openml:iris: expected one class a sample, got other targets"),
        ((np.full((9, 2), "a", dtype=object), np.arange(9).astype(str)), "openml:iris: expected numbers in x, got object"),
    ],
)
def test_what_openml_does_not_have_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, result: Any, told: str) -> None:
    fetched(monkeypatch, result)
    with pytest.raises(InputError, match=told) as refused:
        from_openml("iris")
    assert "\n" not in str(refused.value)


def test_a_name_that_is_none_is_never_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(monkeypatch, AssertionError("looked up"))
    for name in ("", "a/b", "a b", "x" * 101):
        with pytest.raises(InputError, match="expected the name of one of OpenML's data sets"):
            load(f"{loading.OPENML}{name}")


def test_without_scikit_learn_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(AbsentError, match=r"expected the package scikit-learn, .*; pip install scikit-learn"):
        from_openml("iris")
