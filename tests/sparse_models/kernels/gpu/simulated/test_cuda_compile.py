"""What is found of NVIDIA's libraries, and how kernels are launched; the card and cuda-core are simulated."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparse_models.errors import InputError
from sparse_models.kernels.cuda import _compile
from sparse_models.kernels.cuda._compile import Launch


def absent(monkeypatch: pytest.MonkeyPatch, find: Any, number: Any) -> str | None:
    monkeypatch.setattr("importlib.util.find_spec", find)
    monkeypatch.setattr(_compile, "version", number)
    return _compile.why_absent.__wrapped__()


def raising(error: Exception) -> Any:
    def raise_(*_: object) -> None:
        raise error

    return raise_


def test_what_is_missing_is_said_whatever_is_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def new(_: str) -> str:
        return "1.2.2"

    assert absent(monkeypatch, lambda name: name, new) is None
    for find, number in (
        (lambda name: None, new),
        (lambda name: name, lambda _: "0.3.2"),
        (lambda name: name, raising(PackageNotFoundError("cuda-core"))),
        (raising(ModuleNotFoundError("'cuda' is a file of somebody's own")), new),
        (raising(ValueError("cuda.__spec__ is None")), new),
    ):
        assert "pip install 'sparse-models[gpu]'" in str(absent(monkeypatch, find, number))


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """What is launched, and on which device; blocks have 1,000 bytes of shared memory; on the first, launches may overlap."""
    seen: list[tuple[Any, ...]] = []
    current = [0]

    @contextmanager
    def on(device: int) -> Iterator[None]:
        before, current[0] = current[0], device
        yield
        current[0] = before

    core = SimpleNamespace(
        launch=lambda stream, config, kernel, *arguments: seen.append((current[0], stream, kernel, arguments, config)),
        LaunchConfig=lambda **of: of,
        Stream=SimpleNamespace(from_handle=lambda handle: f"stream {handle} of {current[0]}"),
        Device=lambda device: SimpleNamespace(set_current=lambda: None),
    )
    monkeypatch.setattr(_compile, "_core", lambda: core)
    monkeypatch.setattr(_compile, "_function", lambda file, macros, device: (f"{file} on {device}", 1000, device == 0))
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    for kept in (_compile._stream, _compile._config):
        kept.cache_clear()
    yield seen
    for kept in (_compile._stream, _compile._config):
        kept.cache_clear()


def on_card(number: int) -> torch.Tensor:
    """A tensor that says it is on a card."""

    class Far(torch.Tensor):
        @property
        def device(self) -> torch.device:  # type: ignore[override]
            return torch.device("cuda", number)

    return torch.ones(4).as_subclass(Far)


def test_a_kernel_runs_where_its_tensors_are(launched: list[tuple[Any, ...]]) -> None:
    for number in (0, 1):
        x = on_card(number)
        _compile.run("product.cu", (), Launch((1, 1), 32), None, x, 3, 0.5)
        device, stream, kernel, arguments, _ = launched[-1]
        assert (device, stream, kernel) == (number, f"stream 0 of {number}", f"product.cu on {number}")
        assert [getattr(argument, "value", argument) for argument in arguments] == [0, x.data_ptr(), 3, 0.5]


def test_a_card_with_too_little_shared_memory_is_refused_in_one_sentence(launched: list[tuple[Any, ...]]) -> None:
    with pytest.raises(InputError, match=r"expected a card with 1001 bytes .* got one with 1000; .*use another layer"):
        _compile.run("product.cu", (), Launch((1, 1), 32, 1001), on_card(0))
    assert not launched


def test_launches_overlap_where_the_card_can(launched: list[tuple[Any, ...]]) -> None:
    for number in (0, 1):
        _compile.run("product.cu", (), Launch((1, 1), 32, overlapped=True), on_card(number))
    assert [config["programmatic_stream_serialization"] for *_, config in launched] == [True, False]


def test_a_card_that_is_too_old_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(InputError, match=r"expected a card of compute capability 8.0 or later, got 7.5, .*; use another layer"):
        _compile._function("product.cu", (), 0)


def test_no_kernel_has_shared_variables_of_its_own() -> None:
    """All that a card has is asked for; `cuKernelSetAttribute` refuses it beside others, and no kernel would be launched."""
    sources = sorted(Path(_compile.__file__).parent.glob("*.cu*"))
    texts = {file.name: re.sub(r"#define DYNAMIC_SHARED.*", "", file.read_text(encoding="utf-8")) for file in sources}
    assert "product.cu" in texts
    assert not [name for name, text in texts.items() if "__shared__" in text]


def test_where_no_compiler_is_found_it_is_said_which_one_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for PyTorch built for CUDA 12 and cuda-bindings for CUDA 13, which finds no library of that."""
    error = RuntimeError("Failure finding libnvrtc.so.13\n  searched here\n  and there")
    monkeypatch.setitem(sys.modules, "cuda.bindings.nvrtc", SimpleNamespace(nvrtcVersion=raising(error)))
    monkeypatch.setattr(_compile, "version", lambda _: "13.5.0")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    with pytest.raises(InputError) as raised:
        _compile.compiled("gathered.cu", (), "sm_90")
    assert str(raised.value) == (
        "expected NVRTC, NVIDIA's compiler, of the CUDA that cuda-bindings 13.5.0 is for, got none (Failure finding "
        "libnvrtc.so.13); PyTorch brings that of CUDA 12: pip install 'cuda-bindings==12.*'"
    )
