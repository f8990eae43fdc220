"""What a case is timed against: dense in the variant in which it is fastest, and gated."""

import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from bench.cases import Case
from bench.grids import OF_A_NETWORK, REPLAYED, is_gpu, stored
from bench.models.loading import Example
from bench.shapes import Shape
from bench.works.compiled import COMPILED, can_compile, compiled, compiled_step
from bench.works.gates import pass_gate, pass_once
from bench.works.once_per_run import KNOWN
from bench.works.operations import operation
from bench.works.problems import LAYOUTS, build, copies, problems
from bench.works.replays import AsLaunched, Work
from bench.works.whole_model_gate import gate_compiled
from bench.works.whole_models import EAGER, example_of, model_work
from sparse_models.models import MLP
from sparse_models.testing import Problem

LAUNCHED = "launched by the host"  # where others are replayed as a graph
VECTOR = "matrix-vector"  # of one sample, on a GPU

# What dense does meanwhile, where it is not the case's own operation; of a training, what an epoch consists of.
REFERENCE_OPS = {"beside": "forward", "update": "step", "train": "training_step"}


def dense_case(case: Case) -> Case:
    """Return the case of the dense reference: what dense does beside the case, in the case's regime."""
    op = REFERENCE_OPS.get(case.op, case.op)
    dense = case._replace(op=op, model="dense", layer="dense", update="static", sparsity=0.0, skew=0.0)
    data = case.data if op in OF_A_NETWORK else "-"
    return dense._replace(data=data, protocol="-", seed=0, distribution="-", asked_epochs=0, asked_interval=0)


def variant_key(reference: Case) -> str:
    """Return by what name a process knows the variant in which a dense reference is fastest."""
    return f"fastest variant {reference}"


def training_key(reference: Case) -> str:
    """Return by what name a process knows whether a training's dense steps are compiled: its batches are always batch-major."""
    return f"fastest variant of a training {reference}"


class Reference(NamedTuple):
    """What a case is timed against: dense at its best; where weights are to be cold, several works on copies of them."""

    works: list[Work]
    layers: MLP
    layout: str  # or another variant
    gain: float  # the first layout's time over this one's, as the search for the fastest found it

    @property
    def strides(self) -> str:
        """The layout of its activations, whichever variant it is."""
        return self.layout if self.layout in LAYOUTS else LAYOUTS[0]

    @property
    def facts(self) -> dict[str, Any]:
        """What the row says of it."""
        return {"dense_layout": self.layout, "dense_layout_gain": self.gain}


def dense_reference(case: Case) -> Reference:
    """Return the dense layers of the case's shape at the reference's operation, gated, in their fastest variant.

    It is what `bench.engine.reference_search` found; without a run's search, as where every body is run once, it is the first
    of the layouts.
    """
    reference = dense_case(case)
    variant, gain = fastest_variant(reference)
    pass_gate(reference, "dense", variant if variant in LAYOUTS else LAYOUTS[0])
    built = _kept(variant, reference) if is_gpu(case.device) else dense_works(variant, reference)
    return Reference(*built, variant, gain)


@lru_cache(maxsize=8)  # the operations and precisions of a shape, whose cases follow one another
def _kept(variant: str, reference: Case) -> tuple[list[Work], MLP]:
    """Return `dense_works`, built once for all candidates of a GPU: to build and capture it takes longer than to time it."""
    return dense_works(variant, reference)


def dense_works(variant: str, reference: Case, *, is_clone: bool = False) -> tuple[list[Work], MLP]:
    """Return the operation of a dense reference in one of the variants there are, and its layers; built anew for a clone."""
    if variant == COMPILED:
        build_step = compiled_step.__wrapped__ if is_clone else compiled_step
        step, model = build_step(reference.shape, reference.device, stored(reference.dtype), reference.threads)
        return [step], model
    parts = problems(reference, "dense")
    model = build("dense", parts)
    layout = variant if variant in LAYOUTS else LAYOUTS[0]
    works = [
        matrix_vector(each, parts) if variant == VECTOR else operation(reference.op, each, parts, layout)
        for each in copies(model, reference, parts)
    ]
    return [AsLaunched(work) for work in works] if variant == LAUNCHED else works, model


def matrix_vector(model: MLP, parts: list[Problem]) -> Work:
    """Return the forward pass of one layer for one sample as a product with a vector."""
    [layer], x = model, parts[0].x[0]
    weight, bias = layer.values.detach(), layer.bias

    def forward() -> torch.Tensor:
        with torch.no_grad():
            return torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)

    return forward


def first_variant(reference: Case) -> str:
    """Return the variant that a reference is run in unless another is found faster."""
    return EAGER if reference.op in OF_A_NETWORK else LAYOUTS[0]


def works_of(variant: str, reference: Case) -> list[Work]:
    """Return the operation of a dense reference in one of its variants, whatever it is of."""
    return [whole_model(variant, reference)[0]] if reference.op in OF_A_NETWORK else dense_works(variant, reference)[0]


def variants(case: Case) -> Iterator[str]:
    """Yield the variants beside the first that the reference of a case may be run in."""
    reference, batch = dense_case(case), Shape.parse(case.shape).batch
    if reference.op in OF_A_NETWORK:  # whose activations lie as its own code has them
        # What is looked at before code that is compiled runs takes longer than one sample does in so small a network.
        is_worth_it = reference.op != "pruned" or batch > 1
        yield from [COMPILED] * (is_worth_it and can_compile(reference.device))
        return
    if batch > 1 and case.op != "train":  # a single sample lies in memory in one way
        yield LAYOUTS[1]
    # Single products leave a compiler nothing to fuse, and a host few kernels to launch.
    if reference.op == "training_step":
        yield from [COMPILED] * can_compile(reference.device)
        yield from [LAUNCHED] * (reference.regime in REPLAYED)
    if is_gpu(reference.device) and (batch, reference.op) == (1, "forward") and len(Shape.parse(reference.shape).sizes) == 2:
        yield VECTOR


def fastest_variant(reference: Case) -> tuple[str, float]:
    """Return the variant that was found the fastest, and its gain over the first, which is it where none was looked for."""
    variant, gain = KNOWN.get(variant_key(reference), (first_variant(reference), 1.0))
    return variant, gain


def whole_model(variant: str, reference: Case, *, is_clone: bool = False) -> tuple[Work, Example]:
    """Return the operation of a dense network of the user's in one of its variants, and the network; built anew for a clone."""
    if variant == EAGER:
        example = example_of(reference)
        return model_work(reference.op, example), example
    return (_compiled_model.__wrapped__ if is_clone else _compiled_model)(reference)


@lru_cache(maxsize=2)  # compiled code is loaded in a second or two, and cases of one network follow one another
def _compiled_model(reference: Case) -> tuple[Work, Example]:
    example = example_of(reference)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
        work = model_work(reference.op, example, run_as=compiled)
        learning = reference.op == "model_step"
        pass_once(f"{COMPILED} {reference}", lambda: gate_compiled(work, example, example_of(reference), learning=learning))
        work()  # in the processes that need no gate it is compiled here, or loaded
    return work, example
