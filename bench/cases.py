"""The cases of a selection, in plain names and numbers."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from bench import grids
from bench.grids import is_gpu
from bench.selection import Selection
from bench.shapes import Shape, chosen_data, default_regime, training_shapes
from sparse_models.layers import LAYERS
from sparse_models.masks import FULL, UNSTRUCTURED
from sparse_models.updates import UPDATES


class Case(NamedTuple):
    """One benchmark case: plain strings and numbers, the same fields for all, "-" or 0 where one has no meaning."""

    op: str
    model: str  # sparse, unpruned, or of dense layers: dense, narrow; for train eager, compiled and autocast too
    layer: str
    update: str
    shape: str
    sparsity: float
    device: str
    dtype: str
    threads: int
    data: str = "-"  # a training's data set, or the name of a network: of grids.NETWORKS, or of the user's
    protocol: str = "-"
    seed: int = 0
    regime: str = "warm"
    skew: float = 0.0
    distribution: str = "-"  # of a training's sparsity over its layers, or the file of a model's masks
    asked_epochs: int = 0  # of a training, where others are asked for than its data set has
    asked_interval: int = 0  # of a training: steps from one mask update to the next, likewise
    zeros: float = 0.0  # share of the inputs that are 0

    @property
    def group(self) -> str:
        """What pytest-benchmark's table groups by."""
        return " ".join([self.op, *[self.data, self.protocol] * (self.op == "train"), self.shape, *self._unusual])

    @property
    def id(self) -> str:
        """What pytest shows between brackets, the operation being the function's name."""
        arm = [self.update, self.layer] if self.model == "sparse" else [self.model]
        name = self.model if self.model in ("narrow", grids.UNPRUNED) else self.layer
        of_a_layer = [self.data, name] if self.op == "threshold" else [name]
        what = [self.data, self.protocol, *arm] if self.op == "train" else arm if self.op == "update" else of_a_layer
        what = [*what, self.data] if self.op in grids.OF_A_NETWORK else what
        where = [*[f"seed{self.seed}"] * (self.op == "train"), self.device, self.dtype, f"{self.threads}threads"]
        return "-".join([*what, self.shape, f"{self.sparsity:g}", *where, *self._unusual])

    @property
    def _unusual(self) -> list[str]:
        regime = [] if self.regime == "warm" else [self.regime]
        distribution = [] if self.distribution in ("-", grids.DISTRIBUTION) else [self.distribution]
        asked = {"skew": self.skew, "zeros": self.zeros, "epochs": self.asked_epochs, "interval": self.asked_interval}
        return [*regime, *distribution, *(f"{name}{value:g}" for name, value in asked.items() if value)]


def cases(op: str, selection: Selection) -> Iterator[Case]:
    """Yield the cases of one operation in a fixed order: those that share a dense reference follow one another."""
    own = selection.model
    if own is not None and own.sparsities and op not in grids.OF_A_MODEL:  # each shape has those of its layers' masks
        for shape, sparsities in own.sparsities:
            unmasked = own._replace(sparsities=())
            yield from cases(op, selection._replace(shapes=(shape,), sparsities=sparsities, model=unmasked))
        return
    own_cases = {**dict.fromkeys(grids.OF_A_MODEL, _model_cases), "pruned": _pruned_cases, "update": _update_cases}
    make = {**own_cases, "train": _training_cases, "threshold": _threshold_cases}.get(op, _layer_cases)
    for device in selection.devices:
        for dtype, is_rival in _dtypes(op, selection, device):
            for threads in selection.threads:
                for case in make(op, selection, device, dtype, threads):
                    if is_rival and case.model != "dense":
                        continue  # it is there as the rival of float32
                    # An epoch of a training is what it is: no part of it is repeated warm, or replayed; its masks are its own.
                    regimes = selection.regimes or (default_regime(case.op, case.shape, case.device),)
                    skews = (0.0,) if op in grids.OF_A_NETWORK else selection.skews  # whose masks are its own, too
                    zeros = selection.zeros_of(op, skips=LAYERS[case.layer].skips_zeros)
                    kinds = [(case.zeros, "warm", 0.0)] if op in grids.TRAINED else itertools.product(zeros, regimes, skews)
                    for share, regime, skew in kinds:
                        yield case._replace(regime=regime, skew=skew, zeros=share)


def _dtypes(op: str, selection: Selection, device: str) -> Iterator[tuple[str, bool]]:
    """Yield the precisions of an operation, and whether dense alone is timed in one: as a rival of the others."""
    if selection.dtypes is not None:
        yield from ((dtype, False) for dtype in selection.dtypes)
        return
    yield "float32", False
    if op in grids.WHOLE:
        if is_gpu(device):
            yield from (("bfloat16", op == "training_step" and not (selection.is_full or selection.layers)), ("tf32", True))
        elif selection.has_references:
            yield from ((dtype, True) for dtype in selection.rivals)


def _own_layers(selection: Selection, device: str, dtype: str) -> tuple[str, ...]:
    """Return the layers of the default grid, or of the full one; of a model's many shapes the one that the answer is about."""
    if selection.model is not None and not selection.is_full:
        return tuple(_best(device))
    kind, stored = device.partition(":")[0], grids.stored(dtype)
    # One that runs on the device in other precisions is left out, unless this one is asked for: then it is told why.
    able = (one for one in LAYERS.items() if selection.dtypes or kind not in one[1].devices or stored in one[1].dtypes_on(kind))
    return tuple(name for name, layer in able if not layer.optional and (selection.is_full or layer.is_default_on(kind)))


def _layer_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    layers = selection.layers or _own_layers(selection, device, dtype)
    # A layer that holds every weight is timed once, against its own clone. Dense always is: it is the control of the run.
    full = [layer for layer in LAYERS if LAYERS[layer].pattern is FULL and layer in ("dense", *layers)]
    narrow = op in grids.WHOLE and selection.has_references
    unpruned = narrow and selection.has_unpruned(device, dtype)
    for shapes, sparsities in _grid(op, selection, device):
        narrow_at = selection.sparsities or (sparsities if selection.is_full else grids.usual(sparsities))
        for shape in shapes:
            yield from (Case(op, "dense", layer, "static", shape, 0.0, device, dtype, threads) for layer in full)
            if unpruned:
                yield Case(op, grids.UNPRUNED, grids.UNPRUNED_LAYER, "static", shape, 0.0, device, dtype, threads)
            for sparsity in selection.sparsities or _with_those_of(layers, sparsities):
                for layer in layers:
                    if layer not in full and sparsity in _sparsities(layer, sparsities, selection, device):
                        yield Case(op, "sparse", layer, "static", shape, sparsity, device, dtype, threads)
                if narrow and 0 < sparsity < 1 and sparsity in narrow_at:
                    yield Case(op, "narrow", "dense", "static", shape, sparsity, device, dtype, threads)


def _model_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    own = selection.model
    if own is None or (op == "model_step" and not own.can_learn):
        return
    what = (device, dtype, threads, own.reference)
    yield Case(op, "dense", "dense", "static", own.shape, 0.0, *what)
    asked = selection if own.sparsity is None else selection._replace(sparsities=(own.sparsity,))
    for sparsity in asked.sparsities or grids.SPARSITIES:
        for layer in selection.layers or _own_layers(selection, device, dtype):
            # A layer whose masks only a network chooses together has none here.
            can_choose = LAYERS[layer].pattern is not FULL and LAYERS[layer].pattern.of_network is None
            if can_choose and sparsity in _sparsities(layer, grids.SPARSITIES, asked, device):
                yield Case(op, "sparse", layer, "static", own.shape, sparsity, *what, distribution=own.mask)


def _pruned_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    sparsities = grids.PRUNED_SPARSITIES if selection.is_full else grids.DEFAULT_PRUNED_SPARSITIES
    layers = [one for one in selection.layers or _best(device) if LAYERS[one].pattern is not FULL]
    data = selection.data or (tuple(grids.FEATURES) if selection.is_full else tuple(grids.DEFAULT_PROTOCOLS))
    names = [name for name, (own, _) in grids.NETWORKS.items() if own in data and not is_gpu(device)]
    for name, batch, sparsity in itertools.product(names, grids.PRUNED_BATCHES, selection.sparsities or sparsities):
        for layer in layers:
            if LAYERS[layer].pattern.of_network is None and sparsity in _sparsities(layer, (sparsity,), selection, device):
                shape = f"{grids.NETWORKS[name][1]}b{batch}"
                yield Case(op, "sparse", layer, "static", shape, sparsity, device, dtype, threads, name)


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
    return sparsities if is_whole or layer in _best(device) else grids.of_others(sparsities, on_gpu=is_gpu(device))


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
            for layer in selection.layers or _own_layers(selection, device, dtype):
                if UPDATES[update].moves and UPDATES[update].fits(LAYERS[layer].pattern):
                    for sparsity in _sparsities(layer, grids.UPDATE_SPARSITIES, selection, device):
                        yield Case(op, "sparse", layer, update, shape, sparsity, device, dtype, threads)


def _training_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    asked = selection.epochs or 0, selection.interval or 0
    for data in chosen_data(selection):
        for shape in training_shapes(data, selection):
            for protocol in selection.protocols_of(data):
                for seed in range(selection.seeds):
                    for model, layer, update, sparsity, distribution in _arms(selection, device, dtype, shape):
                        where = (str(shape), sparsity, device, dtype, threads, data, protocol, seed, "warm", 0.0, distribution)
                        yield Case(op, model, layer, update, *where, *asked)


def _threshold_cases(op: str, selection: Selection, device: str, dtype: str, threads: int) -> Iterator[Case]:
    layers = selection.layers or (*_best(device), *(name for name, layer in LAYERS.items() if layer.skips_zeros))
    data, sparsities = selection.data or grids.THRESHOLD_DATA, selection.sparsities or grids.THRESHOLD_SPARSITIES
    arms = selection._replace(
        layers=layers, data=data, sparsities=sparsities, updates=("static",), protocols=("tuned",), seeds=1, shapes=None
    )
    for case in _training_cases("train", arms, device, dtype, threads):
        skips, shape = LAYERS[case.layer].skips_zeros, Shape.parse(case.shape)._replace(batch=1)
        if case.model == "sparse" and (skips or case.sparsity):
            for share in selection.zeros or (grids.THRESHOLD_SHARES if skips else (0.0,)):
                yield case._replace(op=op, shape=str(shape), zeros=share)


def _own_updates(selection: Selection) -> tuple[str, ...]:
    """Return the update rules of the default grid, or of the full one."""
    return tuple(name for name, rule in UPDATES.items() if selection.is_full or rule.is_default)


def _learned(selection: Selection, device: str, dtype: str) -> list[tuple[str, str]]:
    """Return the layers that are trained, each with each of its update rules."""
    layers, updates = selection.layers or tuple(_best(device)), selection.updates or _own_updates(selection)
    found = list(itertools.product(layers, updates))
    if not (selection.layers or selection.updates or selection.data or is_gpu(device)):
        others = _own_layers(selection._replace(is_full=False), device, dtype)  # what the patterns of rivals cost in accuracy
        found += [(one, "static") for one in others if LAYERS[one].pattern is not UNSTRUCTURED]
    return [one for one in found if LAYERS[one[0]].pattern is not FULL and UPDATES[one[1]].fits(LAYERS[one[0]].pattern)]


def _arms(selection: Selection, device: str, dtype: str, shape: Shape) -> Iterator[tuple[str, str, str, float, str]]:
    learned, whole = _learned(selection, device, dtype), selection.layers or _best(device)
    full = ["dense", *(("eager", "compiled") if selection.is_full else ())]
    full += ["autocast"] * ("bfloat16" in selection.rivals and dtype == "float32" and not is_gpu(device))  # fewer bits
    yield from ((model, "dense", "static", 0.0, grids.DISTRIBUTION) for model in full)
    grid = grids.FULL_TRAINING_SPARSITIES if selection.is_full else grids.TRAINING_SPARSITIES
    sparsities = selection.sparsities or _with_those_of(tuple(layer for layer, _ in learned), grid)
    for distribution, sparsity in itertools.product(selection.distributions, sparsities):
        for layer, update in learned:
            is_uniform = LAYERS[layer].pattern.sparsities is not None  # in every layer, and so once beside any distribution
            own = _sparsities(layer, grid if layer in whole else grids.TRAINING_SPARSITIES, selection, device)
            if sparsity in own and (not is_uniform or distribution == selection.distributions[0]):
                yield "sparse", layer, update, sparsity, grids.DISTRIBUTION if is_uniform else distribution
        if len(shape.sizes) > 2 and sparsity:  # or there is nothing that could be narrower
            yield "narrow", "dense", "static", sparsity, distribution
