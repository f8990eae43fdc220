"""What trainings find is kept between runs, and found anew wherever anything that it depends on is another."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bench.works import once_per_run
from bench.works.once_per_run import KNOWN, kept
from sparse_models.data import Data, Split

ONE, OTHER = (Data(one, one, one, 2) for one in (Split(torch.full((2, 3), at), torch.arange(2)) for at in (1.0, 2.0)))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Return how many things were found anew by the time that another process has asked for one."""
    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.setattr(once_per_run, "SOURCES", once_per_run.sources_now())
    monkeypatch.setattr(once_per_run, "load", lambda name: {"one": ONE, "other": OTHER}[name])
    times: list[int] = []

    def find() -> dict[str, list[float]]:
        times.append(len(times))
        return {"a": [0.1, 1 / 3]}

    def ask(key: str = "key", data: str = "one") -> int:
        once_per_run._hash_of.cache_clear()  # as in another process
        assert kept(key, data, find) == {"a": [0.1, 1 / 3]}
        return len(times)

    return ask


def test_what_one_process_found_the_next_need_not(found: Callable[..., int]) -> None:
    assert [found(), found(), found()] == [1, 1, 1]


def test_another_key_data_pytorch_and_machine_have_their_own(
    found: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [found(), found("another"), found(data="other")] == [1, 2, 3]
    monkeypatch.setattr(torch, "__version__", "0.0")
    assert found() == 4
    monkeypatch.setattr(once_per_run, "machine", lambda: ("another",))
    assert found() == 5


def test_a_data_set_of_the_same_name_with_other_samples_is_another(
    found: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found() == 1
    monkeypatch.setattr(once_per_run, "load", lambda _: ONE._replace(test=OTHER.test))
    assert found() == 2


def test_with_other_sources_it_is_found_anew_and_kept_only_if_they_are_what_was_loaded(
    found: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found() == 1
    monkeypatch.setattr(once_per_run, "SOURCES", "of another version")
    assert [found(), found()] == [2, 3]  # not kept: what is there by now is not what was loaded
    monkeypatch.setattr(once_per_run, "sources_now", lambda: "of another version")
    assert [found(), found()] == [4, 4]
    monkeypatch.setattr(once_per_run, "SOURCES", None)
    assert found() == 5


def test_both_packages_are_among_the_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(once_per_run, "sources", lambda package: f"hash of {package.name}")
    assert once_per_run.sources_now() == "hash of sparse_models hash of bench"
    monkeypatch.setattr(once_per_run, "sources", lambda package: None if package.name == "bench" else "hash")
    assert once_per_run.sources_now() is None


def test_a_file_that_was_cut_is_found_anew(found: Callable[..., int], tmp_path: Path) -> None:
    assert found() == 1
    [file] = tmp_path.glob("*.found")
    file.write_bytes(file.read_bytes()[:-1])
    assert [found(), found()] == [2, 2]


def test_what_is_kept_is_one_training_s_and_no_gate_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bench import bench_pruned  # noqa: PLC0415  # it imports all layers

    monkeypatch.setenv("SPARSE_MODELS_CACHE", str(tmp_path))
    monkeypatch.setattr(once_per_run, "SOURCES", once_per_run.sources_now())
    asked = ("digits-mlp", "tiled", 0.9, 1, 0, 1, 1)
    first = bench_pruned.pruned(*asked)
    for name in [name for name in KNOWN if name.startswith("bench.bench_pruned.pruned")]:
        del KNOWN[name]
    monkeypatch.setattr(bench_pruned, "prune", lambda *_: pytest.fail("expected no second training"))
    monkeypatch.setattr(bench_pruned, "why_not", lambda *_: "tiled: its gate of this run")
    accuracies, masks, failure = bench_pruned.pruned(*asked)
    assert (accuracies, masks) == first[:2]
    assert failure == "tiled: its gate of this run"
