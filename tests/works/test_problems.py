from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases import Case
from bench.works import problems
from sparse_models.masks import UNSTRUCTURED, random_mask, random_score, skewed_score
from sparse_models.models import draw


class FarGenerator:
    """A generator on a device that this machine has not."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def manual_seed(self, seed: int) -> "FarGenerator":
        return self


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> FarGenerator:
    """Let torch draw by such generators: tensors of the right shape, where they would be."""

    def drawing(name: str) -> None:
        real = getattr(torch, name)

        def drawn(*arguments: Any, generator: Any = None, device: Any = "cpu", **options: Any) -> Tensor:
            if isinstance(generator, FarGenerator):
                assert torch.device(device) == generator.device
                generator = None
            return real(*arguments, generator=generator, device=device, **options)  # type: ignore[no-any-return]

        monkeypatch.setattr(torch, name, drawn)

    for name in ("rand", "randn", "randint"):
        drawing(name)
    monkeypatch.setattr(torch, "Generator", FarGenerator)
    return FarGenerator("meta")


def test_scores_and_weights_are_where_their_generator_is(far: Any) -> None:
    assert random_score((2, 3), far).is_meta
    assert skewed_score((2, 3), 0.5, 1.0, far).is_meta
    assert all(part.is_meta for pair in draw((3, 2), far) for part in pair)
    assert not random_score((2, 3)).is_meta


def test_scores_without_a_generator_are_drawn_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn_on: list[Any] = []
    rand = torch.rand

    def noted(*arguments: Any, device: Any, **options: Any) -> Tensor:
        drawn_on.append(device)
        return rand(*arguments, device=device, **options)

    monkeypatch.setattr(torch, "rand", noted)
    assert random_score((2, 3), device="meta").is_meta
    assert skewed_score((2, 3), 0.5, 1.0, device="meta").is_meta
    assert set(drawn_on) == {"meta"}
    assert random_score((2, 3), torch.Generator(), "meta").is_meta
    assert drawn_on[-1] == torch.device("cpu")


@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_a_problem_is_drawn_on_its_device(skew: float, far: FarGenerator) -> None:
    given: list[Tensor] = []

    def noted(score: Tensor, sparsity: float) -> Tensor:
        given.append(score)
        return random_mask(score.shape, sparsity)

    pattern = UNSTRUCTURED._replace(from_score=noted)
    made = problems.problem(pattern, 5, 4, 3, 0.5, skew, "meta", "float32")
    assert all(part is not None and part.is_meta for part in (made.weight, made.bias, made.x, made.output_grad, *given))
    assert [score.shape for score in given] == [(4, 5)]
    assert problems.labels_of([made]).is_meta


def test_cold_weights_are_so_many_copies_that_no_cache_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problems, "cache_bytes", lambda _: 1000)
    case = Case("forward", "sparse", "csr", "static", "16x16b1", 0.5, "cpu", "float32", 1, regime="graph-cold")
    parts = problems.problems(case, "csr")
    made = problems.copies(problems.build("csr", parts), case, parts)
    [layer] = made[0]
    assert len(made) * layer.weight_bytes >= 4 * 1000 > (len(made) - 1) * layer.weight_bytes
    assert len({next(iter(model)).values.data_ptr() for model in made}) == len(made)
    assert all(torch.equal(model(parts[0].x), made[0](parts[0].x)) for model in made)
    assert len(problems.copies(made[0], case._replace(regime="graph"), parts)) == 1
