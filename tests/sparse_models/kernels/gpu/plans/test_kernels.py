"""Kernels for a GPU take the plan that is fastest, among plans that all fit: in the emulator, and interpreted."""

from typing import Any

import pytest
import torch

from sparse_models.kernels import choice
from sparse_models.kernels.cpu.tiled import define_product, define_sampled
from sparse_models.kernels.cuda import _card, _compile, _race, small_batch
from sparse_models.kernels.cuda import product as cuda_product
from sparse_models.kernels.cuda import sampled as cuda_sampled
from sparse_models.kernels.cuda._card import Card
from sparse_models.kernels.cuda._compile import Macros
from sparse_models.kernels.cuda._tiling import Tiling, Work, estimated, work_of
from sparse_models.kernels.cuda.frozen import Frozen
from sparse_models.kernels.cuda.small_batch import Packed, Plan
from sparse_models.kernels.triton import _loading, blocks
from sparse_models.kernels.triton._plan import SIZES, product_plan, product_plans, sampled_plan, sampled_plans
from sparse_models.kernels.variant import Choice
from tests.helpers.gpu import cuda_emulator, interpreted
from tests.helpers.gpu.told_stopwatch import Told, told
from tests.sparse_models.kernels.gpu.test_cuda_products import problem
from tests.sparse_models.kernels.gpu.test_triton_blocks import draw

__all__ = ["told"]  # a fixture


@cuda_emulator.needs_compiler
def test_the_products_of_few_samples_are_raced(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "run", cuda_emulator.run)
    monkeypatch.setattr(_card, "card_of", lambda _: Card(2))
    monkeypatch.setattr(_card, "cache_bytes", lambda _: 10_000)
    monkeypatch.setattr(_card, "free_bytes", lambda _: 2**30)
    numbers = problem(3, 40, 96, 3, 0.5, torch.float32, "cpu")
    x = numbers.x.t().contiguous()
    packed = small_batch.pack(numbers.structure, numbers.values, small_batch.form_for(96, torch.float32, 3))
    rule, other, *_ = small_batch.candidates(packed, 3, Card(2))
    told.seconds = {other: 0.5}
    told.noted(monkeypatch, small_batch, "product", 3)
    read = set[int]()

    launched = []

    def noted(packed: Packed, plan: Plan) -> Macros:
        launched.append(plan)
        read.add(packed.values.data_ptr())
        return macros(packed, plan)

    macros = small_batch.macros
    monkeypatch.setattr(small_batch, "macros", noted)
    frozen = Frozen()
    expected = define_product(numbers.structure, numbers.values, numbers.x, numbers.bias).t()
    with torch.no_grad():
        for _ in range(2):
            found = frozen.product(numbers.structure, numbers.values, x, numbers.bias)
            assert found is not None
            torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)
    assert len(read) == 1 + 2 * 10_000 // packed.bytes_read
    assert told.calls[-1] == other._replace(overlapped=False) != rule
    assert launched[-1] == other
    assert small_batch.plan_for(packed, x) == other


@pytest.mark.parametrize(("free", "given", "copies"), [(100, 100, 10), (8, 100, 4), (1.5, 100, 0), (100, 5, 0)])
def test_weights_that_race_are_copied_as_far_as_half_of_the_free_memory_goes(
    free: float, given: int, copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All figures are in weights; where memory gives fewer than it tells, none are kept, for what is raced needs some, too."""
    numbers = problem(3, 40, 96, 3, 0.5, torch.float32, "cpu")
    packed = small_batch.pack(numbers.structure, numbers.values, small_batch.form_for(96, torch.float32, 3))
    monkeypatch.setattr(_card, "cache_bytes", lambda _: 5 * packed.bytes_read)
    monkeypatch.setattr(_card, "free_bytes", lambda _: int(free * packed.bytes_read))
    made, clone = list[torch.Tensor](), torch.Tensor.clone

    def cloned(tensor: torch.Tensor) -> torch.Tensor:
        if len(made) == 3 * given:
            raise torch.OutOfMemoryError
        made.append(clone(tensor))
        return made[-1]

    monkeypatch.setattr(torch.Tensor, "clone", cloned)
    found = small_batch._copies(packed)
    assert found[0] is packed
    assert len({one.values.data_ptr() for one in found}) == len(found) == 1 + copies


@pytest.mark.parametrize("batch", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_all_plans_for_few_samples_can_be_launched_and_the_rules_is_first(dtype: torch.dtype, batch: int) -> None:
    for columns in (64, 6000):
        numbers = problem(3, 8, columns, batch, 0.05, dtype, "cpu")
        form = small_batch.form_for(columns, dtype, batch)
        packed = small_batch.pack(numbers.structure, numbers.values, form)
        plans = small_batch.candidates(packed, batch)
        assert plans[0] == small_batch.rule(packed, batch)
        assert len({*plans}) == len(plans) >= 2
        for plan in plans:
            launch, _ = small_batch._launch(packed, batch, plan, Card())
            assert launch.shared_bytes <= Card().shared_bytes


@pytest.mark.usefixtures("told")
def test_a_plan_of_a_class_has_as_many_batch_columns_as_fit_each_of_its_works() -> None:
    """Of two widths of a class the wider leaves no room for as many."""
    form, held, columns, names = small_batch.Form(matrix=False, slabs=1, width=16), Plan(8, lanes=8), [], set[str]()
    for width in (7000, 7300):
        numbers = problem(3, 4, width, 8, 0.05, torch.float32, "cpu")
        packed = small_batch.pack(numbers.structure, numbers.values, form)
        kernel = "few samples (matrix=0, slabs=1, width=16)"
        names.add(str(choice.Work(kernel, (width, 4), 8, len(numbers.values), torch.float32, "no card")))
        choice.hold({min(names): Choice(held, {held: 1.0}, 0.0, held._fields).plain()})
        plan = small_batch.plan_for(packed, numbers.x.t().contiguous())
        assert plan.lanes == held.lanes
        assert small_batch.shared_bytes(packed, plan.columns) <= Card().shared_bytes
        columns.append(plan.columns)
    assert len(names) == 1
    assert columns == [8, 4]


@cuda_emulator.needs_compiler
@pytest.mark.parametrize("kernel", ["product", "transposed", "sampled"])
def test_the_products_of_many_samples_are_raced(kernel: str, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compile, "run", cuda_emulator.run)
    monkeypatch.setattr(_card, "card_of", lambda _: Card(3))
    numbers = problem(5, 20, 30, 40, 0.4, torch.float32, "cpu")
    module: Any = cuda_sampled if kernel == "sampled" else cuda_product
    order = torch.arange(len(numbers.values)).flip(0).int() if kernel == "transposed" else None
    tried = module.best_tilings(work_of(numbers.structure, numbers.x))
    assert len({*tried}) == _race.MOST
    told.seconds = {tried[2]: 0.5}
    told.noted(monkeypatch, module, "sampled_and_summed" if kernel == "sampled" else "product", "tiling")
    for _ in range(2):
        if kernel == "sampled":
            found = cuda_sampled.sampled(numbers.structure, numbers.grad, numbers.x)
            expected = define_sampled(numbers.structure, numbers.grad, numbers.x)
        else:
            found = cuda_product.product(numbers.structure, numbers.values, numbers.x, numbers.bias, order=order)
            values = numbers.values if order is None else numbers.values[order.long()]
            expected = define_product(numbers.structure, values, numbers.x, numbers.bias)
        torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-5)
    assert {*tried} == {*told.calls}
    [(name, kept)] = choice.in_use().items()
    assert name.startswith("transposed" if order is not None else "sparse")
    assert kept.variant == tried[2]


def test_blocks_are_raced(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreted.needs_interpreter()
    monkeypatch.setattr(_loading, "kernels", interpreted.interpreted_kernels)
    monkeypatch.setattr(_card, "card_of", lambda _: Card(7))
    drawn = draw((72, 40, 70), 16, torch.float32, "cpu")
    product, sampled = blocks.product, blocks.sampled
    products = product_plans(16, 70, torch.float32, "tf32x3", has_tma=False)
    gradients = sampled_plans(16, torch.float32, "tf32x3")
    told.seconds = {products[1]: 0.5, gradients[1]: 0.5}
    told.noted(monkeypatch, blocks, "product", 4)
    told.noted(monkeypatch, blocks, "sampled", 3)
    for _ in range(2):
        torch.testing.assert_close(product(drawn.rows, drawn.values, drawn.x), drawn.x @ drawn.weight.t(), rtol=1e-4, atol=1e-4)
        back = product(drawn.columns, drawn.values, drawn.grad)
        torch.testing.assert_close(back, drawn.grad @ drawn.weight, rtol=1e-4, atol=1e-4)
        found = sampled(drawn.rows, drawn.grad, drawn.x)
        torch.testing.assert_close(found, drawn.cut(drawn.grad.t() @ drawn.x), rtol=1e-4, atol=1e-4)
    kept = {name.partition(" (")[0]: one.variant for name, one in choice.in_use().items()}
    assert kept == {"block16 product": products[1], "transposed block16 product": products[1], "block16 gradient": gradients[1]}


@pytest.mark.parametrize("shared_bytes", [64 * 1024, 99 * 1024, 227 * 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_all_plans_of_blocks_fit_and_the_rules_is_first(size: int, dtype: torch.dtype, shared_bytes: int) -> None:
    for precision in ("tf32", "tf32x3"):
        for batch in (1, 300, 4096):
            for has_tma in (False, True):
                first, *others = product_plans(size, batch, dtype, precision, has_tma=has_tma, shared_bytes=shared_bytes)
                assert first == product_plan(size, batch, dtype, precision, has_tma=has_tma, shared_bytes=shared_bytes)
                for plan in others:
                    assert plan.rows * size <= 128 * 32 * plan.warps
                    assert plan.stages * plan.depth * (plan.rows + size) * dtype.itemsize <= shared_bytes
                    assert plan.rows >= 16
                    assert not plan.by_tma or (has_tma and plan.depth == size and dtype != torch.float32)
        first, *others = sampled_plans(size, dtype, precision, shared_bytes)
        assert first == sampled_plan(size, dtype, precision)
        assert {plan.rows for plan in others} <= {first.rows // 2, first.rows, 2 * first.rows} - {0}
        for plan in others:
            assert plan.rows * size * size <= 128 * 32 * plan.warps
            assert plan.stages * plan.depth * (plan.rows + 1) * size * dtype.itemsize <= shared_bytes


def clocks_of(module: Any, tiling: Tiling, work: Work) -> float:
    parts = module.default_parts(tiling, work)
    if module is cuda_sampled:
        return cuda_sampled._clocks(tiling, work, parts)
    return estimated(tiling, work, module.STAGED_BYTES, parts, module.COSTS)


@pytest.mark.parametrize("module", [cuda_product, cuda_sampled])
def test_tilings_that_race_are_different_kernels_or_have_different_slabs(module: Any) -> None:
    for columns in (30, 256, 4096):
        work = Work(256, columns, 64 * columns, 512, 4)
        tried = module.best_tilings(work)
        kinds = {(one._replace(cuts=0), one.slab(columns, module.STAGED_BYTES, turns=one.tiles(work) > 1)) for one in tried}
        assert len(kinds) == len(tried) == _race.MOST
        clocks = [clocks_of(module, one, work) for one in tried]
        assert clocks == sorted(clocks)
