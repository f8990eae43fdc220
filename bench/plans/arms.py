"""A model in, its arms out: as it is, and copies in which each linear layer and convolution is another; all can be called."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.models.layers import Linear, inspected, output_of
from bench.models.loading import Example, load
from bench.models.selected import NONE, given_masks
from bench.plans.stopwatch import Stopwatch
from bench.works.whole_model_gate import TRIES, gate_model
from bench.works.whole_models import LEARNING_RATE, as_it_is, output_gradient, sparsified
from sparse_models.errors import GateError, InputError
from sparse_models.layers import LAYERS
from sparse_models.linear import parameter_of
from sparse_models.masks import FULL
from sparse_models.sparsification import sparsify
from sparse_models.sparsification.choice import CRITERIA, choose
from sparse_models.sparsification.fast_path import SWITCHES
from sparse_models.training import optimizer_for

OPS = ("forward", "step")
WIDTH, INDENT = 100, " " * 4  # of a call as it is written
# Dense as its user calls it; with each layer of a transformer called, as where one of them is sparse; the same, watched.
PLAIN, CALLED, DENSE = "plain", "called", "dense"


class Kind(NamedTuple):
    """What a layer can be made: a name in LAYERS and a sparsity."""

    layer: str
    sparsity: float

    def __str__(self) -> str:
        """Return both, as an arm in which every layer is of this kind is named."""
        return f"{self.layer} {self.sparsity:g}"


Choices = Sequence[Kind | None]  # what each layer of a model is to become; None stays dense


def arm_of(choices: Choices) -> str:
    """Return what the arm is called in which each layer is what is chosen for it."""
    kinds = ["dense" if one is None else str(one) for one in choices]
    return kinds[0] if len(set(kinds)) == 1 else ", ".join(kinds)


class Swap(NamedTuple):
    """One call of `sparsify`: the layers that become one kind, by their names in full."""

    layer: str
    sparsity: float
    names: Sequence[str]
    file: str = NONE  # of masks

    def carry_out(self, module: nn.Module, given: Mapping[str, Tensor]) -> None:
        """Exchange the layers of a module in place; what `given` has masks of, a file's or those of `prune`, has those."""
        masks = {name: mask for name, mask in given.items() if name in self.names}
        sparsify(module, self.layer, sparsity=self.sparsity, names=list(self.names), masks=masks)

    def __str__(self) -> str:
        """Return the call as it is written, where `masks` are the file's."""
        names = list(map(_quoted, self.names))
        has_file = self.file != NONE
        which = "masks={name: masks[name] for name in [" if has_file else f"sparsity={self.sparsity!r}, names=["
        start, end = f'sparsify(model, "{self.layer}", {which}', "]})" if has_file else "])"
        whole = f"{start}{', '.join(names)}{end}"
        if len(whole) <= WIDTH:
            return whole
        lines = [INDENT]
        for name in names:
            if lines[-1] != INDENT and len(lines[-1]) + len(name) + 1 > WIDTH:
                lines[-1] = lines[-1].rstrip()
                lines.append(INDENT)
            lines[-1] += f"{name}, "
        return "\n".join([start, *lines[:-1], lines[-1].rstrip(), end])


def swaps_of(names: Sequence[str], choices: Choices, file: str = NONE) -> list[Swap]:
    """Return the calls that make layers, by their names, what is chosen for each."""
    kinds = dict.fromkeys(one for one in choices if one)
    return [Swap(*kind, [name for name, own in zip(names, choices, strict=True) if own == kind], file) for kind in kinds]


def _quoted(name: str) -> str:
    """Return a text as Python has it, between double quotes where nothing in it needs others."""
    return f'"{name}"' if repr(name) == f"'{name}'" and '"' not in name else repr(name)


class Arm:
    """A model that is called on its batch, and whose layers are watched where they are named."""

    def __init__(
        self, example: Example, op: str, watched: Sequence[str] = (), run_as: Callable[[nn.Module], Any] = as_it_is
    ) -> None:
        """Take an example for inference or, where `op` is step, for training; `run_as` may compile it."""
        self.model, self.batch = example.module.train(op == "step"), example.batch
        self._run = run_as(self.model)
        self.layers = [self.model.get_submodule(name) for name in watched]
        self.watch = Stopwatch(self.layers)
        learned = [one for one in self.model.parameters() if one.requires_grad]
        self.optimizer = optimizer_for("adam", learned, LEARNING_RATE) if op == "step" else None
        self._optimizing = 0.0
        with torch.no_grad():
            self.gradient = output_gradient(output_of(self.model(*self.batch)))

    def __call__(self) -> object:
        """Run the model once: without a graph, or a whole training step."""
        if self.optimizer is None:
            with torch.no_grad():
                return self._run(*self.batch)
        self.optimizer.zero_grad()
        output_of(self._run(*self.batch)).backward(self.gradient)
        begin = time.perf_counter()
        self.optimizer.step()
        self._optimizing += time.perf_counter() - begin
        return None

    def lap(self) -> list[float]:
        """Return the seconds of each layer since the last lap; the optimizer's are shared out by numbers of weights."""
        seconds, self._optimizing, spent = self.watch.lap(), 0.0, self._optimizing
        total = max(1, _learned(self.model))
        return [own + spent * _learned(layer) / total for own, layer in zip(seconds, self.layers, strict=True)]


def _learned(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def default_kinds(sparsity: float, layers: Sequence[str] | None = None) -> list[Kind]:
    """Return the kinds of layers that a model can be pruned to: those asked for, or those of the default grid on a CPU."""
    free = {
        name: layer
        for name, layer in LAYERS.items()
        if layer.pattern is not FULL
        and layer.pattern.of_network is None
        and sparsity in (layer.pattern.sparsities or (sparsity,))
    }
    usual = [name for name, layer in free.items() if layer.is_default_on("cpu") and not layer.is_indifferent]
    for name in layers or ():
        if name not in free and LAYERS.find(name):
            raise InputError(
                f"expected layers that can be pruned to {sparsity:g} one by one, as {', '.join(free)}, got {name!r}; "
                "leave it out"
            )
    return [Kind(name, sparsity) for name in layers or usual]


def exchangeable(target: str, file: str = NONE) -> list[Linear]:
    """Return the layers of a network that can be sparse: all or, of a file of masks, those in it, by its names first."""
    layers = inspected(target).exchangeable
    if file == NONE:
        return layers
    given = given_masks(target, file)
    named = [(layer, next((name for name in layer.names if name in given), None)) for layer in layers]
    return [layer._replace(names=tuple(dict.fromkeys((name, *layer.names)))) for layer, name in named if name is not None]


class Model:
    """A network of the user's, and its arms."""

    def __init__(self, target: str, file: str = NONE) -> None:
        """Load it by the name of the function that makes it; of a file of masks, only layers that have one can be sparse."""
        self.target, self.example, self.given = target, load(target), given_masks(target, file)
        self.names = [layer.name for layer in exchangeable(target, file)]
        self._masks: dict[tuple[str, float, bool], dict[str, Tensor]] = {}

    def masks(self, kind: Kind, *, is_given: bool = True) -> Mapping[str, Tensor]:
        """Return the masks [of the weight's shape] of the layers for a kind: of the largest weights, or those given."""
        pattern = LAYERS[kind.layer].pattern
        key = (pattern.name, kind.sparsity, is_given)
        if key not in self._masks:
            weights = [parameter_of(self.example.module.get_submodule(name)) for name in self.names]
            scores = [CRITERIA["magnitude"].score(weight.flatten(1), None) for weight in weights]
            found = choose(scores, [pattern] * len(scores), [kind.sparsity] * len(scores))
            found = [mask.view(weight.shape) for mask, weight in zip(found, weights, strict=True)]
            given = self.given if is_given else {}
            self._masks[key] = dict(zip(self.names, found, strict=True)) | given
        return self._masks[key]

    def sparse(self, choices: Choices, *, is_given: bool = True) -> Example:
        """Return a copy in which each layer that can be sparse is what is chosen for it."""
        example = self.example.copied
        for layer, sparsity, names, _ in swaps_of(self.names, choices):
            masks = self.masks(Kind(layer, sparsity), is_given=is_given)
            sparsified(example.module, {name: masks[name] for name in names}, layer)
        return example

    def all_of(self, kind: Kind) -> Choices:
        """Return the choice of one kind for every layer."""
        return [kind] * len(self.names)

    @property
    def called(self) -> Example:
        """A copy whose transformer layers call their linear layers, and do not hand their weights to one kernel."""
        example = self.example.copied
        for module in example.module.modules():
            for kind, switch in SWITCHES.items():
                if isinstance(module, kind) and hasattr(module, switch):
                    setattr(module, switch, 0)
        return example

    @property
    def has_fast_path(self) -> bool:
        """Whether a module is one of those that read weights past their layers."""
        return any(isinstance(module, tuple(SWITCHES)) for module in self.example.module.modules())

    def kept(self, kind: Kind) -> list[float]:
        """Return for each layer what the weights that a kind keeps have of the sum of all absolute weights."""
        masks = self.masks(kind)
        weights = {name: parameter_of(self.example.module.get_submodule(name)).detach().abs() for name in self.names}
        return [float((weights[name] * masks[name]).sum() / weights[name].sum().clamp(min=1e-30)) for name in self.names]

    def pass_gate(self, kind: Kind, *, learning: bool) -> None:
        """Raise GateError unless the copy of a kind does what the model does whose weights outside the masks are 0."""
        first = self._gate_failure(kind, 0, learning=learning)
        others = (self._gate_failure(kind, attempt, learning=learning) for attempt in range(1, TRIES))
        if first is not None and None not in others:
            raise first

    def _gate_failure(self, kind: Kind, attempt: int, *, learning: bool) -> GateError | None:
        try:
            gate_model(
                self.example.copied,
                lambda _: self.masks(kind),
                lambda module, masks: sparsified(module, masks, kind.layer),
                attempt,
                learning=learning,
            )
        except GateError as error:
            return error
        return None
