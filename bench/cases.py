"""The grid of cases: names and numbers, nothing else."""

import re
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL
from sparse_models.updates import UPDATES

# What a step consists of, each timed by itself; the update of the mask, which comes once in many steps, is an operation too.
PARTS = ("training_forward", "input_gradient", "weight_gradient", "optimizer")
WHOLE = ("forward", "backward", "step", "training_step")  # the last with a loss at its end, as the training loop takes it
OF_A_LAYER = (*WHOLE, *PARTS, "beside")  # in turns with one of PyTorch's own operations
OPS = (*OF_A_LAYER, "update", "train")
SPARSITIES = (0.5, 0.8, 0.9, 0.95, 0.99)
COLD_REPLAY = "graph-cold"
REPLAYED = ("graph", COLD_REPLAY)
REGIMES = ("warm", "cold", *REPLAYED)  # see bench.engine.rounds
# TensorFloat-32 is float32 as it is stored, whose products a GPU computes from 10 bits of each factor's fraction.
STORED = {"tf32": "float32"}
DTYPES = ("float32", "float64", "bfloat16", "float16", *STORED)
# A ViT-S feed-forward layer, and one sample through a transformer's.
SHAPES = ("384x1536b128", "512x2048b1")

# The seed's experiment. Its hidden layers are 256 and 256 wide; its sparsity is 0.8.
HIDDEN = (256, 256)
TRAINING_SPARSITIES = (0.8,)
TRAINING_LAYERS = ("tiled", "csr")  # the first of them that runs on the device, unless asked for
PROTOCOLS = ("seed", "tuned")
SEEDS = 3
SEED_LEARNING_RATE = 1e-3
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
FEATURES = {"random": 100, "teacher": 100, "digits": 64}
# Even numbers of epochs: each is a pair, and each arm goes first as often as the other.
EPOCHS_AND_BATCH = {"random": (10, 4096), "teacher": (6, 256), "digits": (10, 128)}
UPDATE_INTERVAL = 10  # steps; RigL's 100, for trainings a tenth as long as the usual ones
SEARCH_SEEDS = (1000, 1001)  # none of the seeds that are reported

# Whole training steps, their parts and updates are looked at where the seed's experiment is, unless asked for elsewhere.
PART_SPARSITIES = UPDATE_SPARSITIES = (0.8,)
PART_SHAPES = UPDATE_SHAPES = TRAINING_SHAPES = ("100x256x256x10b4096",)
# Shapes and sparsities of any operation, and of those that have their own; parts are held against a step that is there too.
Grid = list[tuple[tuple[str, ...], tuple[float, ...]]]
GRID: Grid = [(SHAPES, SPARSITIES)]
OF_STEPS: dict[str, Grid] = {part: [(PART_SHAPES, PART_SPARSITIES)] for part in PARTS}
GRIDS: dict[str, Grid] = {
    "step": [*GRID, (PART_SHAPES, PART_SPARSITIES)],
    "training_step": [(TRAINING_SHAPES, SPARSITIES)],
    "beside": [(SHAPES[:1], PART_SPARSITIES)],
    **OF_STEPS,
}
# A GPU's shapes: layers of a large language model for one and eight samples and at a training's batch, and a ViT's.
GPU_SPARSITIES = (0.5, 0.8, 0.9, 0.95)
VIT_SHAPES, LARGE_SHAPES = ("768x3072b2048",), ("4096x4096b4096",)
FEW_SAMPLES = tuple(f"4096x{outputs}b{batch}" for outputs in (4096, 14336) for batch in (1, 8))
GPU_GRID: Grid = [(FEW_SAMPLES, GPU_SPARSITIES), (VIT_SHAPES, GPU_SPARSITIES), (LARGE_SHAPES, (0.8, 0.95))]
GPU_GRIDS: dict[str, Grid] = {
    "backward": [(VIT_SHAPES, (0.8,))],
    "step": [(VIT_SHAPES, GPU_SPARSITIES), (LARGE_SHAPES, (0.8, 0.95)), (("4096x14336b4096",), (0.9,)), (PART_SHAPES, (0.8,))],
    "training_step": [(TRAINING_SHAPES, GPU_SPARSITIES)],
    "beside": [(VIT_SHAPES, PART_SPARSITIES)],
    **OF_STEPS,
}
# So few samples pass through a large layer that its weights are all that is moved, and a model's other layers push them out of
# the caches before they come to be needed again.
COLD_BATCH = 32


class Shape(NamedTuple):
    """Layer sizes (in, hidden ..., out) and the batch; two sizes are one layer, more are an MLP with ReLU between."""

    sizes: tuple[int, ...]
    batch: int

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """Return the shape written as 256x256b4096; raises InputError for anything else and for a zero."""
        match = re.fullmatch(r"(\d{1,9}(?:x\d{1,9})+)b(\d{1,9})", text)
        shape = cls(tuple(int(size) for size in match[1].split("x")), int(match[2])) if match else None
        if shape is None or min(*shape.sizes, shape.batch) < 1:
            raise InputError(
                f"expected a shape like 256x128b64 (input, output and batch sizes, each at least 1), got {text!r}; "
                "more sizes make an MLP, as in 100x256x256x10b4096"
            )
        return shape

    def __str__(self) -> str:
        """Return the shape as `parse` reads it."""
        return f"{self.chain}b{self.batch}"

    @property
    def chain(self) -> str:
        """The sizes alone, as in 256x128."""
        return "x".join(map(str, self.sizes))


class Case(NamedTuple):
    """One benchmark case: plain strings and numbers, the same fields for all, "-" or 0 where one has no meaning."""

    op: str
    model: str  # dense, sparse or narrow
    layer: str
    update: str
    shape: str
    sparsity: float
    device: str
    dtype: str
    threads: int
    data: str = "-"
    protocol: str = "-"
    seed: int = 0
    regime: str = "warm"
    skew: float = 0.0

    @property
    def group(self) -> str:
        """What pytest-benchmark's table groups by."""
        return f"train {self.data} {self.protocol}" if self.op == "train" else " ".join([self.op, self.shape, *self._unusual])

    @property
    def id(self) -> str:
        """What pytest shows between brackets, the operation being the function's name."""
        arm = {"dense": ["dense"], "narrow": ["narrow"], "sparse": [self.update, self.layer]}[self.model]
        what = [self.data, self.protocol, *arm] if self.op == "train" else arm if self.op == "update" else [self.layer]
        seed = [f"seed{self.seed}"] if self.op == "train" else []
        where = [self.device, self.dtype, f"{self.threads}threads", *self._unusual]
        return "-".join([*what, self.shape, f"{self.sparsity:g}", *seed, *where])

    @property
    def _unusual(self) -> list[str]:
        regime = [] if self.regime == "warm" else [self.regime]
        return regime + ([f"skew{self.skew:g}"] if self.skew else [])


class Selection(NamedTuple):
    """What the command line selects; None = the defaults of each operation."""

    ops: tuple[str, ...]
    layers: tuple[str, ...] | None
    updates: tuple[str, ...] | None
    shapes: tuple[str, ...] | None
    sparsities: tuple[float, ...] | None
    devices: tuple[str, ...]
    dtypes: tuple[str, ...] | None
    threads: tuple[int, ...]
    regimes: tuple[str, ...] | None
    data: tuple[str, ...]
    protocols: tuple[str, ...] | None
    seeds: int
    skews: tuple[float, ...] = (0.0,)


def cases(op: str, selection: Selection) -> Iterator[Case]:
    """Yield the cases of one operation in a fixed order: those that share a dense reference follow one another."""
    make = {"update": _update_cases, "train": _training_cases}.get(op, _layer_cases)
    for device in selection.devices:
        for dtype in selection.dtypes or _default_dtypes(op, device):
            for threads in selection.threads:
                for case in make(op, selection, device, dtype, threads):
                    if selection.dtypes is None and dtype in STORED and case.model != "dense":
                        continue  # it is there as the rival of float32
                    # An epoch of a training is what it is: no part of it is repeated warm, or replayed; its masks are its own.
                    regimes = selection.regimes or (default_regime(case),)
                    kinds = product(regimes, selection.skews) if op != "train" else [("warm", 0.0)]
                    for regime, skew in kinds:
                        yield case._replace(regime=regime, skew=skew)


def stored(dtype: str) -> str:
    """Return the name of the type in which torch stores numbers of a precision."""
    return STORED.get(dtype, dtype)


def _default_dtypes(op: str, device: str) -> tuple[str, ...]:
    """Return the precisions of an operation: on a GPU each is a rival of the others."""
    return ("float32", "bfloat16", "tf32") if is_gpu(device) and op in WHOLE else ("float32",)


def is_gpu(device: str) -> bool:
    """Tell whether a device, as "cuda" or "cuda:1", is a GPU."""
    return device.partition(":")[0] == "cuda"


def default_regime(case: Case) -> str:
    """Return the regime of a case where none is asked for: as the operation is best run, with weights where they would be."""
    if not is_gpu(case.device):
        return "warm"
    return COLD_REPLAY if case.op == "forward" and Shape.parse(case.shape).batch <= COLD_BATCH else "graph"


def _own_layers() -> tuple[str, ...]:
    return tuple(name for name, layer in LAYERS.items() if not layer.optional)


def _layer_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    layers = selection.layers or _own_layers()
    # A layer that holds every weight is timed once, against its own clone. Dense always is: it is the control of the run.
    full = [layer for layer in LAYERS if LAYERS[layer].pattern is FULL and layer in ("dense", *layers)]
    grids = GPU_GRIDS.get(op, GPU_GRID) if is_gpu(device) else GRIDS.get(op, GRID)
    if selection.shapes:
        grids = [(selection.shapes, grids[0][1])]
    for shapes, sparsities in grids:
        for shape in shapes:
            for layer in full:
                yield Case(op, "dense", layer, "static", shape, 0.0, device, dtype, threads)
            for sparsity in selection.sparsities or sparsities:
                for layer in layers:
                    once = is_gpu(device) and LAYERS[layer].is_indifferent and not selection.sparsities
                    if layer not in full and not (once and sparsity != sparsities[len(sparsities) // 2]):
                        yield Case(op, "sparse", layer, "static", shape, sparsity, device, dtype, threads)


def _update_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    for shape in selection.shapes or UPDATE_SHAPES:
        for update in selection.updates or tuple(UPDATES):
            for layer in selection.layers or _own_layers():
                if UPDATES[update].moves and LAYERS[layer].pattern is not FULL:
                    for sparsity in selection.sparsities or UPDATE_SPARSITIES:
                        yield Case(op, "sparse", layer, update, shape, sparsity, device, dtype, threads)


def _training_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    for data in selection.data:
        shape = str(Shape((FEATURES[data], *HIDDEN, 10), EPOCHS_AND_BATCH[data][1]))
        # Random labels leave nothing to tune towards, so `tuned` is trained on them only when asked for.
        for protocol in selection.protocols or (PROTOCOLS[:1] if data == "random" else PROTOCOLS):
            for seed in range(selection.seeds):
                for model, layer, update, sparsity in _arms(selection, device):
                    yield Case(op, model, layer, update, shape, sparsity, device, dtype, threads, data, protocol, seed)


def _arms(selection: Selection, device: str) -> Iterator[tuple[str, str, str, float]]:
    best = [layer for layer in TRAINING_LAYERS if device.partition(":")[0] in LAYERS[layer].devices]
    layers = [layer for layer in selection.layers or best[:1] if LAYERS[layer].pattern is not FULL]
    yield "dense", "dense", "static", 0.0
    for sparsity in selection.sparsities or TRAINING_SPARSITIES:
        for layer in layers:
            for update in selection.updates or tuple(UPDATES):
                yield "sparse", layer, update, sparsity
        yield "narrow", "dense", "static", sparsity
