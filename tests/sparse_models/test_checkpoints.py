"""An interrupted training goes on to the same losses, weights and masks, in any storage; a damaged file is refused."""

from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparse_models.data import Split
from sparse_models.errors import InputError
from sparse_models.masks import UNSTRUCTURED
from sparse_models.models import MLP, dense_mlp, draw, sparse_mlp
from sparse_models.training import Settings, train
from sparse_models.updates import UPDATES
from tests.strategies import generator, normal, rules_and_optimizers

SETTINGS, SEED = Settings(epochs=6, batch=8, learning_rate=0.02, update_interval=3), 4
FREE = sorted(name for name, rule in UPDATES.items() if rule.fits(UNSTRUCTURED))
DATA = Split(normal(1, 44, 7), torch.randint(4, (44,), generator=generator(1)))


def model_of(layer: str, rule: str) -> MLP:
    drawn = draw((7, 9, 4), generator(0))
    return sparse_mlp(drawn, layer, 0.7, generator(2), update=UPDATES[rule], samples=(DATA.inputs, DATA.labels))


def losses(model: MLP, rule: str, path: Path | None, stop: int | None = None, **changed: Any) -> list[torch.Tensor]:
    settings = SETTINGS._replace(**changed)
    return list(islice(train(model, DATA, settings, SEED, UPDATES[rule], checkpoint=path), stop))


@pytest.mark.parametrize(("rule", "optimizer"), rules_and_optimizers(FREE))
@pytest.mark.parametrize(("before", "after"), [("tiled", "tiled"), ("csr", "masked")])
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    before: str, after: str, rule: str, optimizer: str, tmp_path: Path
) -> None:
    path, straight = tmp_path / "training.pt", model_of(before, rule)
    expected = losses(straight, rule, None, optimizer=optimizer)
    for epochs in (1, 3):  # twice broken off
        losses(model_of(before, rule), rule, path, epochs, optimizer=optimizer)
    resumed = model_of(after, rule)
    found = losses(resumed, rule, path, optimizer=optimizer)
    assert len(found) == SETTINGS.epochs
    within = 0.0 if before == after else 1e-12
    torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=0, atol=within)
    for one, other in zip(resumed, straight, strict=True):
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.to_dense(), other.to_dense(), rtol=0, atol=within)
        torch.testing.assert_close(one.bias, other.bias, rtol=0, atol=within)
    assert [file.name for file in tmp_path.iterdir()] == ["training.pt"]


def test_a_dense_training_and_one_at_its_end_are_resumed_too(tmp_path: Path) -> None:
    path, drawn = tmp_path / "training.pt", draw((7, 9, 4), generator(0))
    first = losses(dense_mlp(drawn), "static", path)
    again = dense_mlp(drawn)
    assert torch.equal(torch.cat(losses(again, "static", path)), torch.cat(first))
    assert not torch.equal(next(iter(again)).to_dense(), drawn[0][0])


@pytest.mark.parametrize("changed", [{"epochs": 7}, {"batch": 9}, {"learning_rate": 0.1}, {"optimizer": "sgd"}], ids=str)
def test_another_trainings_file_is_refused(changed: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    losses(model_of("csr", "set"), "set", path, 1)
    for rule, different in (("set", changed), ("rigl", {})):
        with pytest.raises(
            InputError, match=r"expected a checkpoint of this training at .*, got one of another: .*; remove it"
        ):
            losses(model_of("csr", rule), rule, path, **different)
    with pytest.raises(InputError, match=r"expected a checkpoint of this model at .*, got one of another; remove it"):
        losses(dense_mlp(draw((7, 3, 4), generator(0))), "set", path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("checkpoints") / "whole.pt"
    losses(model_of("csr", "set"), "set", path, 2)
    return path.read_bytes()


@given(st.floats(0, 1), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_refused_in_a_sentence(
    whole: bytes, tmp_path_factory: pytest.TempPathFactory, place: float, flipped: int, cut: bool
) -> None:
    content, at = bytearray(whole), min(len(whole) - 1, int(place * len(whole)))
    content[at] ^= flipped
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content[:at] if cut else content)
    with pytest.raises(
        InputError, match=r"^expected a checkpoint at .*, got a file that cannot be read as one; remove it to"
    ) as no:
        losses(model_of("csr", "set"), "set", path)
    assert "\n" not in str(no.value)


def test_a_file_that_only_looks_whole_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    path, written = tmp_path / "other.pt", tmp_path / "written"
    for content in ({"form": 1}, {"form": 2}, [1], Path("/")):  # the last is no plain data, and is not made
        torch.save(content, written)
        path.write_bytes(sha256(written.read_bytes()).digest() + written.read_bytes())
        with pytest.raises(InputError, match="got a file that cannot be read as one"):
            losses(model_of("csr", "set"), "set", path)
