"""CUDA kernels on a card where there is one, and in the emulator everywhere: a test that takes `device` runs on both."""

import shutil

import pytest

from sparse_models.kernels.cuda import _card, _compile
from sparse_models.kernels.cuda._card import Card
from tests.helpers.gpu import cuda_emulator

MULTIPROCESSORS = 3  # of the emulated card


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.card)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the device on which tensors of a test are to be."""
    if request.param == "cuda":
        if _compile.why_absent():
            pytest.skip(str(_compile.why_absent()))
        return "cuda"
    if shutil.which("g++") is None:
        pytest.skip("no g++ on this machine, which the emulator needs")
    monkeypatch.setattr(_compile, "run", cuda_emulator.run)
    monkeypatch.setattr(_card, "card_of", lambda _: Card(MULTIPROCESSORS))
    return "cpu"
