from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.cases import Case
from bench.shapes import Shape
from bench.works import problems
from sparse_models.masks import UNSTRUCTURED, count_kept, random_mask, random_score, skewed_score
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
    made = problems.problem(pattern, problems.Key(5, 4, 3, 0.5, skew, "meta", "float32"))
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


@pytest.mark.parametrize("shape", ["384x1536b128", "512x2048b1", "100x256x256x10b64", "7x5b3", "1x1b1"])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.9, 0.999])
def test_narrow_dense_has_as_many_weights_as_are_kept_and_hardly_fewer(shape: str, sparsity: float) -> None:
    case = Case("step", "narrow", "dense", "static", shape, sparsity, "cpu", "float32", 2)
    found = problems.narrowed(case)
    assert (found.model, found.sparsity, found.op) == ("dense", 0.0, "step")
    sizes, wide = Shape.parse(found.shape).sizes, Shape.parse(shape).sizes
    assert Shape.parse(found.shape).batch == Shape.parse(shape).batch
    kept = sum(count_kept(a * b, sparsity) for a, b in pairwise(wide))
    weights = sum(a * b for a, b in pairwise(sizes))
    assert weights <= kept or 1 in sizes  # below which none falls
    if min(sizes) > 1:  # one more in each of the sizes that shrink is too many
        assert sum(a * b for a, b in pairwise(size + (size < before) for size, before in zip(sizes, wide, strict=True))) > kept
    if len(wide) > 2:
        assert (sizes[0], sizes[-1]) == (wide[0], wide[-1])
