"""Triton's kernels compiled for cards that are not there: they use tensor cores, fit their shared memory, and spill nothing."""

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from sparse_models.kernels.triton import blocks, columns
from sparse_models.kernels.triton._plan import EXACT, Plan, product_plan, sampled_plan
from tests.helpers.gpu.interpreted import compiled_kernels
from tests.helpers.processes import commands

pytestmark = pytest.mark.skipif(blocks.why_absent() is not None, reason=str(blocks.why_absent()))
NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
SHARED = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}  # bytes that a program can have on a card of this compute capability
PRODUCTS = {80: "mma.sync", 89: "mma.sync", 90: "wgmma.mma_async"}  # the instructions of their tensor cores


class Code(NamedTuple):
    ir: str  # of Triton
    ptx: str
    shared_bytes: int
    spilled_bytes: int


def compiled(name: str, card: int, plan: Plan, kinds: dict[str, str], constants: dict[str, Any], tmp_path: Path) -> Code:
    """The code of a kernel whose tensors and sizes are multiples of 16 bytes, or of 16."""
    triton: Any = importlib.import_module("triton")
    kernel = getattr(compiled_kernels(), name)
    places = {argument: (number,) for number, argument in enumerate(kernel.arg_names)}
    even = {places[one]: [["tt.divisibility", 16]] for one, kind in kinds.items() if kind[0] == "*" or one != "rows"}
    even = {place: told for place, told in even.items() if "tensordesc" not in kinds[kernel.arg_names[place[0]]]}
    source = triton.compiler.ASTSource(
        fn=kernel,
        signature=kinds | dict.fromkeys(constants, "constexpr"),
        constexprs={places[one]: value for one, value in constants.items()},
        attrs=even,
    )
    target = importlib.import_module("triton.backends.compiler").GPUTarget("cuda", card, 32)
    made = triton.compile(source, target=target, options={"num_warps": plan.warps, "num_stages": plan.stages})
    assembler = Path(str(triton.__file__)).parent / "backends/nvidia/bin/ptxas"
    (tmp_path / "kernel.ptx").write_text(made.asm["ptx"])
    command: list[str | Path] = [
        assembler,
        "-v",
        f"--gpu-name=sm_{card}{'a' * (card >= 90)}",
        tmp_path / "kernel.ptx",
        "-o",
        tmp_path / "kernel",
    ]
    told = commands.run(command)
    assert told.returncode == 0, told.stderr
    [spilled] = re.findall(r"(\d+) bytes spill stores", told.stderr)
    return Code(made.asm["ttir"], made.asm["ptx"], made.metadata.shared, int(spilled))


def product_of(size: int, dtype: torch.dtype, card: int, precision: str, tmp_path: Path, *, turned: bool) -> tuple[Plan, Code]:
    plan = product_plan(size, 4096, dtype, precision, has_tma=card >= 90, shared_bytes=SHARED[card])
    name = NAMES[dtype]
    boxes = {"x": f"tensordesc<{name}[{plan.rows}, {size}]>", "values": f"tensordesc<{name}[{size}, {size}]>"}
    kinds = boxes if plan.by_tma else {"x": f"*{name}", "values": f"*{name}"}
    kinds |= {"pointers": "*i32", "indices": "*i32", "order": "*i32", "bias": f"*{name}", "result": f"*{name}"}
    kinds |= dict.fromkeys(("batch", "inputs", "outputs", "rows"), "i32")
    constants: dict[str, Any] = {
        "SIZE": size,
        "ROWS": plan.rows,
        "DEPTH": plan.depth,
        "TURNED": turned,
        "ORDERED": turned,
        "WHOLE": True,
    }
    constants |= {"BIASED": not turned, "BY_TMA": plan.by_tma, "PRECISION": precision}
    return plan, compiled("product", card, plan, kinds, constants, tmp_path)


@pytest.mark.parametrize("card", SHARED)
@pytest.mark.parametrize(
    ("size", "dtype", "precision", "turned"),
    [(16, torch.bfloat16, "ieee", False), (64, torch.bfloat16, "ieee", False), (64, torch.bfloat16, "ieee", True),
     (64, torch.float32, EXACT, True)],
    ids=str,
)  # fmt: skip
def test_a_product_fits_the_card(
    card: int, size: int, dtype: torch.dtype, precision: str, turned: bool, tmp_path: Path
) -> None:
    plan, code = product_of(size, dtype, card, precision, tmp_path, turned=turned)
    assert PRODUCTS[card] in code.ptx
    assert code.shared_bytes <= SHARED[card]
    assert code.spilled_bytes == 0
    # Several steps are under way: the copies of the first come before the loop, and are not waited for one by one.
    copies = "cp.async.bulk.tensor" if plan.by_tma else "cp.async.cg"
    assert code.ptx.count(copies) >= 2 * plan.stages
    assert plan.by_tma == (card >= 90 and (size, dtype) == (64, torch.bfloat16))
    # Where a block begins is counted in 64 bits, for all blocks together may hold more numbers than 32 bits count.
    assert plan.by_tma or f"dense<{size * size}> : tensor<{plan.depth}x1xi64>" in code.ir or f"{size * size} : i64" in code.ir


@pytest.mark.parametrize("card", SHARED)
@pytest.mark.parametrize(
    ("size", "dtype", "precision"), [(16, torch.bfloat16, "ieee"), (64, torch.float32, "tf32"), (128, torch.float32, EXACT)],
    ids=str,
)  # fmt: skip
def test_a_weight_gradient_fits_the_card(card: int, size: int, dtype: torch.dtype, precision: str, tmp_path: Path) -> None:
    plan, name = sampled_plan(size, dtype, precision), NAMES[dtype]
    kinds = {"grad": f"*{name}", "x": f"*{name}", "pointers": "*i32", "indices": "*i32", "result": f"*{name}"}
    kinds |= dict.fromkeys(("batch", "inputs", "outputs", "rows", "samples_each", "blocks"), "i32")
    constants: dict[str, Any] = {
        "SIZE": size,
        "COUNT": plan.rows,
        "DEPTH": plan.depth,
        "POINTERS": 64,
        "FEATURE_MAJOR": precision == "tf32",
    }
    constants |= {"WHOLE": True, "PRECISION": precision}
    code = compiled("sampled", card, plan, kinds, constants, tmp_path)
    assert PRODUCTS[card] in code.ptx
    assert code.shared_bytes <= SHARED[card]
    assert code.spilled_bytes == 0


@pytest.mark.parametrize("card", SHARED)
@pytest.mark.parametrize("samples", [1, columns.LARGEST_BATCH])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_a_product_that_skips_zero_inputs_loads_only_where_it_may(
    card: int, samples: int, sparse: bool, tmp_path: Path
) -> None:
    kinds = dict.fromkeys(("x", "values", "bias", "result"), "*bf16") | {"bits": "*i32", "starts": "*i32"}
    kinds |= dict.fromkeys(("batch", "inputs", "outputs", "words", "each"), "i32")
    constants = {"SAMPLES": samples, "DEPTH": columns.depth_for(samples), "ROWS": columns.ROWS, "SPARSE": sparse}
    plan = Plan(columns.ROWS, columns.depth_for(samples), columns.WARPS, 2)
    code = compiled("skipping", card, plan, kinds, constants | {"BIASED": True}, tmp_path)
    loads = re.findall(r"(@%p\d+ )?ld\.global", code.ptx)
    assert loads
    assert all(loads)  # each stands under a predicate: of a column that is skipped no line is asked for
    assert ("popc" in code.ptx) == sparse
    assert code.shared_bytes <= SHARED[card]
    assert code.spilled_bytes == 0


@pytest.mark.parametrize("ones", [("batch",), ("inputs", "outputs"), ("batch", "inputs", "outputs", "rows", "blocks", "words")])
@pytest.mark.parametrize("name", ["product", "sampled", "skipping"])
def test_sizes_of_1_are_constants_which_a_kernel_must_take_too(name: str, ones: tuple[str, ...], tmp_path: Path) -> None:
    """To the interpreter they are integers like others, so that it cannot tell."""
    options = {
        "product": {"SIZE": 16, "ROWS": 16, "DEPTH": 64, "TURNED": True, "ORDERED": True, "BIASED": True, "BY_TMA": False},
        "sampled": {"SIZE": 16, "COUNT": 8, "DEPTH": 64, "POINTERS": 1, "FEATURE_MAJOR": False},
        "skipping": {"SAMPLES": 1, "DEPTH": columns.STEP, "ROWS": columns.ROWS, "SPARSE": True, "BIASED": True},
    }[name]
    constants: dict[str, Any] = {**options} if name == "skipping" else {**options, "WHOLE": False, "PRECISION": "ieee"}
    numbers = {"x", "values", "grad", "bias", "result"}
    structure = {"pointers", "indices", "order", "bits", "starts"}
    kinds = dict[str, str]()
    for argument in getattr(compiled_kernels(), name).arg_names:
        if argument in ones:
            constants[argument] = 1
        elif argument not in constants:
            kinds[argument] = "*bf16" if argument in numbers else "*i32" if argument in structure else "i32"
    assert compiled(name, 90, Plan(16, 64, 4, 3), kinds, constants, tmp_path).shared_bytes <= SHARED[90]
