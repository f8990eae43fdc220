"""The cases of a selection, in plain names and numbers."""

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from bench import grids
from bench.selection import Selection
from sparse_models.errors import InputError
from sparse_models.layers import LAYERS
from sparse_models.loading import load
from sparse_models.masks import FULL
from sparse_models.updates import UPDATES


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
    distribution: str = "-"  # of a training's sparsity over its layers
    zeros: float = 0.0  # share of the inputs that are 0

    @property
    def group(self) -> str:
        """What pytest-benchmark's table groups by."""
        return f"train {self.data} {self.protocol}" if self.op == "train" else " ".join([self.op, self.shape, *self._unusual])

    @property
    def id(self) -> str:
        """What pytest shows between brackets, the operation being the function's name."""
        arm = {"dense": ["dense"], "narrow": ["narrow"], "sparse": [self.update, self.layer]}[self.model]
        of_a_layer = ["narrow" if self.model == "narrow" else self.layer]
        of_a_layer = [self.data, *of_a_layer] if self.op == "threshold" else of_a_layer
        what = [self.data, self.protocol, *arm] if self.op == "train" else arm if self.op == "update" else of_a_layer
        seed = [f"seed{self.seed}"] if self.op == "train" else []
        where = [self.device, self.dtype, f"{self.threads}threads", *self._unusual]
        return "-".join([*what, self.shape, f"{self.sparsity:g}", *seed, *where])

    @property
    def _unusual(self) -> list[str]:
        regime = [] if self.regime == "warm" else [self.regime]
        distribution = [] if self.distribution in ("-", grids.DISTRIBUTION) else [self.distribution]
        numbers = [f"{name}{value:g}" for name, value in (("skew", self.skew), ("zeros", self.zeros)) if value]
        return [*regime, *numbers, *distribution]


def cases(op: str, selection: Selection) -> Iterator[Case]:
    """Yield the cases of one operation in a fixed order: those that share a dense reference follow one another."""
    make = {"update": _update_cases, "train": _training_cases, "threshold": _threshold_cases}.get(op, _layer_cases)
    for device in selection.devices:
        for dtype, is_rival in _dtypes(op, selection, device):
            for threads in selection.threads:
                for case in make(op, selection, device, dtype, threads):
                    if is_rival and case.model != "dense":
                        continue  # it is there as the rival of float32
                    # An epoch of a training is what it is: no part of it is repeated warm, or replayed; its masks are its own.
                    regimes = selection.regimes or (default_regime(case),)
                    zeros = selection.zeros_of(op, skips=LAYERS[case.layer].skips_zeros)
                    kinds = itertools.product(zeros, regimes, selection.skews)
                    for share, regime, skew in [(case.zeros, "warm", 0.0)] if op in grids.TRAINED else kinds:
                        yield case._replace(regime=regime, skew=skew, zeros=share)


def stored(dtype: str) -> str:
    """Return the name of the type in which torch stores numbers of a precision."""
    return grids.STORED.get(dtype, dtype)


def _dtypes(op: str, selection: Selection, device: str) -> Iterator[tuple[str, bool]]:
    """Yield the precisions of an operation, and whether dense alone is timed in one: as a rival of the others."""
    if selection.dtypes is not None:
        yield from ((dtype, False) for dtype in selection.dtypes)
        return
    yield "float32", False
    if op in grids.WHOLE:
        if is_gpu(device):
            yield from (("bfloat16", False), ("tf32", True))
        elif selection.has_references:
            yield from ((dtype, True) for dtype in selection.rivals)


def is_gpu(device: str) -> bool:
    """Tell whether a device, as "cuda" or "cuda:1", is a GPU."""
    return device.partition(":")[0] == "cuda"


def default_regime(case: Case) -> str:
    """Return the regime of a case where none is asked for: as the operation is best run, with weights where they would be."""
    if not is_gpu(case.device):
        return "warm"
    return grids.COLD_REPLAY if case.op == "forward" and Shape.parse(case.shape).batch <= grids.COLD_BATCH else "graph"


def _own_layers(selection: Selection, device: str) -> tuple[str, ...]:
    """Return the layers of the default grid, or of the full one."""
    kind = device.partition(":")[0]
    own = (name for name, layer in LAYERS.items() if not layer.optional)
    return tuple(name for name in own if selection.is_full or LAYERS[name].is_default_on(kind))


def _layer_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    layers = selection.layers or _own_layers(selection, device)
    # A layer that holds every weight is timed once, against its own clone. Dense always is: it is the control of the run.
    full = [layer for layer in LAYERS if LAYERS[layer].pattern is FULL and layer in ("dense", *layers)]
    narrow = op in grids.WHOLE and selection.has_references
    for shapes, sparsities in _grid(op, selection, device):
        narrow_at = selection.sparsities or (sparsities if selection.is_full else grids.usual(sparsities))
        for shape in shapes:
            for layer in full:
                yield Case(op, "dense", layer, "static", shape, 0.0, device, dtype, threads)
            for sparsity in selection.sparsities or _with_those_of(layers, sparsities):
                for layer in layers:
                    if layer not in full and sparsity in _sparsities(layer, sparsities, selection, device):
                        yield Case(op, "sparse", layer, "static", shape, sparsity, device, dtype, threads)
                if narrow and 0 < sparsity < 1 and sparsity in narrow_at:
                    yield Case(op, "narrow", "dense", "static", shape, sparsity, device, dtype, threads)


def _grid(op: str, selection: Selection, device: str) -> grids.Grid:
    found = grids.grid_of(op, on_gpu=is_gpu(device), is_full=selection.is_full)
    if selection.shapes:
        return [(selection.shapes, found[0][1])]
    if op == "step" and not selection.is_full and {*grids.PARTS, "update"} & set(selection.ops):
        return [*found, *grids.OF_PARTS]
    return found


def _sparsities(layer: str, sparsities: tuple[float, ...], selection: Selection, device: str) -> tuple[float, ...]:
    """Return at which of a grid's sparsities a layer is timed."""
    only = LAYERS[layer].pattern.sparsities
    if selection.sparsities or only is not None:
        return tuple(sparsity for sparsity in selection.sparsities or only or () if only is None or sparsity in only)
    is_whole = selection.is_full or selection.layers is not None
    if LAYERS[layer].is_indifferent and (is_gpu(device) or not is_whole):
        return grids.usual(sparsities)
    return sparsities if is_whole or layer in _best(device) else (*grids.SPARSITIES_OF_OTHERS, *grids.usual(sparsities))


def _with_those_of(layers: tuple[str, ...], sparsities: tuple[float, ...]) -> tuple[float, ...]:
    """Return a grid's sparsities and those of patterns that have only some, in order."""
    only = (LAYERS[layer].pattern.sparsities or () for layer in layers if LAYERS[layer].pattern is not FULL)
    return tuple(sorted({*sparsities, *itertools.chain.from_iterable(only)}))


def _best(device: str) -> list[str]:
    """Return the layer that the answer is about."""
    return [layer for layer in grids.BEST_LAYERS if device.partition(":")[0] in LAYERS[layer].devices][:1]


def _update_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    for shape in selection.shapes or grids.UPDATE_SHAPES:
        for update in selection.updates or _own_updates(selection):
            for layer in selection.layers or _own_layers(selection, device):
                if UPDATES[update].moves and UPDATES[update].fits(LAYERS[layer].pattern):
                    for sparsity in _sparsities(layer, grids.UPDATE_SPARSITIES, selection, device):
                        yield Case(op, "sparse", layer, update, shape, sparsity, device, dtype, threads)


def _training_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    for data in selection.data or tuple(grids.FEATURES if selection.is_full else grids.DEFAULT_PROTOCOLS):
        shape = str(training_shape(data))
        for protocol in selection.protocols_of(data):
            for seed in range(selection.seeds):
                for model, layer, update, sparsity, distribution in _arms(selection, device):
                    where = (shape, sparsity, device, dtype, threads, data, protocol, seed)
                    yield Case(op, model, layer, update, *where, distribution=distribution)


def _threshold_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    layers = selection.layers or (*_best(device), *(name for name, layer in LAYERS.items() if layer.skips_zeros))
    data, sparsities = selection.data or grids.THRESHOLD_DATA, selection.sparsities or grids.THRESHOLD_SPARSITIES
    arms = selection._replace(
        layers=layers, data=data, sparsities=sparsities, updates=("static",), protocols=("tuned",), seeds=1
    )
    for case in _training_cases("train", arms, device, dtype, threads):
        skips, shape = LAYERS[case.layer].skips_zeros, Shape.parse(case.shape)._replace(batch=1)
        if case.model == "sparse" and (skips or case.sparsity):
            for share in selection.zeros or (grids.THRESHOLD_SHARES if skips else (0.0,)):
                yield case._replace(op=op, shape=str(shape), zeros=share)


def training_shape(data: str) -> Shape:
    """Return the sizes of the experiment's network on a data set, and the batch."""
    _, batch = grids.epochs_and_batch(data)
    if data in grids.FEATURES:
        return Shape((grids.FEATURES[data], *grids.HIDDEN, 10), batch)
    own = load(data)  # the user's
    return Shape((own.train.inputs.shape[1], *grids.HIDDEN, own.classes), batch)


def _own_updates(selection: Selection) -> tuple[str, ...]:
    """Return the update rules of the default grid, or of the full one."""
    return tuple(name for name, rule in UPDATES.items() if selection.is_full or rule.is_default)


def _arms(selection: Selection, device: str) -> Iterator[tuple[str, str, str, float, str]]:
    layers = [layer for layer in selection.layers or _best(device) if LAYERS[layer].pattern is not FULL]
    yield "dense", "dense", "static", 0.0, grids.DISTRIBUTION
    sparsities = selection.sparsities or _with_those_of(tuple(layers), grids.TRAINING_SPARSITIES)
    for distribution, sparsity in itertools.product(selection.distributions, sparsities):
        for layer in layers:
            if sparsity in _sparsities(layer, grids.TRAINING_SPARSITIES, selection, device):
                for update in selection.updates or _own_updates(selection):
                    if UPDATES[update].fits(LAYERS[layer].pattern):
                        yield "sparse", layer, update, sparsity, distribution
        yield "narrow", "dense", "static", sparsity, distribution
