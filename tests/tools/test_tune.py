import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench import __main__ as tool
from bench.tables.tuning import lines
from bench.works import tuning
from sparse_models.kernels import candidates, choice, kept_choices
from sparse_models.kernels.contention import Usage
from sparse_models.kernels.cpu import _team
from sparse_models.kernels.variant import Choice, Variant
from tests.helpers.rows import WIDE

DEFAULT, OTHER = Variant(8, 4, 64, 2), Variant(0, 4, 64, 2)
ASKED = ["tune", "--shape", "64x32b16,16x8x4b16,300x20b1", "--sparsity", "0.9", "--threads", "2"]


@pytest.fixture(autouse=True)
def measuring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Two variants of each kernel, measured undisturbed and kept nowhere else."""
    monkeypatch.delenv("SPARSE_MODELS_VARIANT")
    monkeypatch.setattr(kept_choices, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(Usage, "was_disturbed", lambda *_: False)
    monkeypatch.setattr(candidates, "different", lambda variants, *_: variants[:2])
    monkeypatch.setattr(tuning, "PAUSE", 0.0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
    choice.forget()


def test_all_kernels_are_measured_anew_shown_and_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_team, "WORTH_A_TEAM", 0)  # or few samples have one thread, and nothing to choose among
    for _ in range(2):
        assert tool.main(ASKED) == 0
        told = capsys.readouterr().out
        assert "measuring anew for 3 cases" in told
        assert [line.split(",")[0] for line in told.splitlines() if "float32, 2 threads" in line] == [
            "chain", "product", "sample", "sampled",
        ]  # fmt: skip
        assert re.search(r"^ 64x32b16 +1/8 .* 1\.00", told, re.MULTILINE)
        assert {name.split()[0] for name in kept_choices.read()} == {"chain", "product", "sample", "sampled"}


def test_what_is_disturbed_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Usage, "was_disturbed", lambda *_: True)
    assert tool.main(ASKED) == 1
    assert "product 64x32b16, 1/8 kept, float32, 2 threads: another process disturbed it" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--shape", "64"], "expected a shape like 256x128b64"),
        (["--sparsity", "2"], "expected a sparsity"),
        (["--threads", "0"], "expected"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        tool.main(["tune", *options])
    assert text in capsys.readouterr().err


def test_with_a_variant_fixed_there_is_nothing_to_measure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPARSE_MODELS_VARIANT", "default")
    with pytest.raises(SystemExit, match="2"):
        tool.main(["tune"])
    assert "SPARSE_MODELS_VARIANT: expected it to be unset" in capsys.readouterr().err


def test_what_is_not_as_usual_is_named() -> None:
    others = [
        DEFAULT,
        DEFAULT._replace(vector_bytes=32, threads=1),
        DEFAULT._replace(panel_bytes=0),
        DEFAULT._replace(panel_bytes=2**15),
    ]
    found = {"product 8x8b4, 1/2 kept, float32, 2 threads": Choice(DEFAULT, dict.fromkeys(others, 1.0), 0.1)}
    assert re.search(r"8x4 +8x4 32B 1t +8x4 whole +8x4 32K", "\n".join(lines(found, [], 0.1, WIDE)))


def test_the_table_has_each_variant_that_was_tried_and_the_chosen_one_marked() -> None:
    found = {
        "chain 32x32x4b64, 1/8 kept, float32, 2 threads": Choice(OTHER, {DEFAULT: 1.0, OTHER: 0.5}, 0.25),
        "chain 64x32x4b64, 1/8 kept, float32, 2 threads": Choice(DEFAULT, {DEFAULT: 1.0}, 0.25),
    }
    text = "\n".join(lines(found, ["product 1x1b1"], 0.75, WIDE))
    assert re.search(r"shape +kept +8x4 +layers +gain +ms", text)
    assert re.search(r"32x32x4b64 +1/8 +1\.00 +0\.50\* +2\.00x +250", text)
    assert re.search(r"64x32x4b64 +1/8 +1\.00\* +1\.00x +250", text)
    assert "product 1x1b1: another process disturbed it" in text
    assert "2 classes measured in 0.50 s; with all around it 0.75 s" in text
