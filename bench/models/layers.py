"""A network of the user's in, its linear layers and convolutions out: names, shapes, what an example batch asks of each."""

import math
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.models.loading import Example, load, theirs
from bench.shapes import Shape
from sparse_models.errors import InputError
from sparse_models.sparsification.places import DENSE, Wanted, candidates, places

# What multiplies by weights and has no sparse form here.
OTHERS = (nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Bilinear)  # noqa: SLF001


class Linear(NamedTuple):
    """A linear layer as a network calls it, or a convolution as one of patches: one, whatever the number of names and calls."""

    names: tuple[str, ...]
    inputs: int
    outputs: int
    rows: tuple[int, ...]  # samples of each call in one forward pass; of a convolution, places of its output
    has_input_gradient: bool  # whether a training computes one
    can_be_sparse: bool  # whether `sparsify` replaces it
    kernel: tuple[int, ...] = ()  # height and width of a convolution's

    @property
    def name(self) -> str:
        """The first of its names, by which `sparsify` knows it."""
        return self.names[0]

    @property
    def shapes(self) -> list[str]:
        """The shapes of its calls, each once."""
        return list(dict.fromkeys(str(Shape((self.inputs, self.outputs), rows)) for rows in self.rows))


class Inspected(NamedTuple):
    """What a network is to a run."""

    shape: str  # numbers of a sample that go in and come out, and samples, as a case has it
    called: list[Linear]  # by a forward pass, in the module's order: linear layers and convolutions
    never_called: list[str]
    left_dense: list[str]  # sentences on layers that `sparsify` does not replace
    can_learn: bool  # whether there is an output of floating point that depends on a parameter

    @property
    def layers(self) -> list[Linear]:
        """The linear layers."""
        return [layer for layer in self.called if not layer.kernel]

    @property
    def by_shape(self) -> dict[str, list[Linear]]:
        """The layers by the shapes in which they are called."""
        found: dict[str, list[Linear]] = {}
        for layer in self.layers:
            for shape in layer.shapes:
                found.setdefault(shape, []).append(layer)
        return found

    @property
    def sparse(self) -> list[Linear]:
        """The linear layers that can be made sparse."""
        return [layer for layer in self.layers if layer.can_be_sparse]

    @property
    def exchangeable(self) -> list[Linear]:
        """The layers that can be made sparse, convolutions too."""
        return [layer for layer in self.called if layer.can_be_sparse]


def output_of(result: Any) -> Tensor:
    """Return the output that counts: a tensor, or the first of a tuple or list; raises InputError for anything else."""
    first = result[0] if isinstance(result, tuple | list) and result else result
    if not isinstance(first, Tensor):
        got = f"{type(result).__name__} of {type(first).__name__}" if first is not result else type(result).__name__
        raise InputError(
            f"expected a module whose output is a tensor, or a tuple whose first is one, got a {got}; wrap it in a module that "
            "returns one"
        )
    return first


def inspected(reference: str) -> Inspected:
    """Return what a network is, run once on its example batch, in eval mode, on the CPU, as the function returned it.

    Raises InputError as `load` does, for what the forward pass raises, for another output, and where no layer is called that
    is linear or a convolution.
    """
    return _inspected(reference, str(Path.cwd()))


@lru_cache(maxsize=4)
def _inspected(reference: str, _: str) -> Inspected:
    return inspect(reference, load(reference))


def inspect(reference: str, example: Example) -> Inspected:
    """Return what an example is: see `inspected`."""
    if isinstance(example.module, DENSE):
        own_name = f"nn.{type(example.module).__name__}"
        raise InputError(
            f"expected {reference} to return a module that holds layers, got {own_name} itself; put it in a Sequential"
        )
    own = example.copied
    found = places(own.module, DENSE)
    others = [(name, one) for name, one in own.module.named_modules() if isinstance(one, OTHERS) and one not in found]
    calls: dict[nn.Module, list[tuple[int, bool]]] = defaultdict(list)

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        first = inputs[0] if inputs else None
        if isinstance(first, Tensor) and first.numel():
            calls[module].append((_rows(module, first, output), first.requires_grad))

    hooks = [module.register_forward_hook(note) for module in (*found, *(one for _, one in others))]
    with theirs(f"{reference}: the module's forward pass raised"), torch.random.fork_rng(devices=[]), torch.enable_grad():
        result = own.module.eval()(*own.batch)
    for hook in hooks:
        hook.remove()
    output = output_of(result)
    replaced, left_out = candidates(own.module, Wanted(None, DENSE, 0), {})
    called = [
        Linear(
            tuple(place.name for place in at),
            math.prod(_shape(module)[1:]),
            _shape(module)[0],
            tuple(rows for rows, _ in calls[module]),
            any(has_gradient for _, has_gradient in calls[module]),
            module in replaced,
            _shape(module)[2:],
        )
        for module, at in found.items()
        if calls[module]
    ]
    if not called:
        never = f", and {len(found)} that it never calls" * bool(found)
        raise InputError(
            f"expected {reference} to return a module that calls an nn.Linear or an nn.Conv2d, got one without{never}; "
            "name another"
        )
    without: dict[str, list[str]] = {}
    for name, one in others:
        if calls[one]:
            kind = type(one)
            called_so = f"nn.{kind.__name__}" if kind.__module__.startswith("torch.nn.") else kind.__name__
            without.setdefault(called_so, []).append(name or "the module itself")
    stays = {layer.name for layer in called if not layer.can_be_sparse}
    samples = example.samples
    sizes = (own.batch[0].numel() // samples, max(1, output.numel() // samples))
    return Inspected(
        str(Shape(sizes, samples)),
        called,
        [at[0].name for module, at in found.items() if not calls[module]],
        [one for one in left_out if stays & set(one.partition(":")[0].split(", "))]
        + [
            f"{', '.join(names)}: expected nn.Linear or nn.Conv2d, got {kind}, of which there is no sparse form"
            for kind, names in without.items()
        ],
        output.is_floating_point() and output.requires_grad,
    )


def _rows(module: nn.Module, first: Tensor, output: Any) -> int:
    """Return the samples of a linear layer's input, or the places of a convolution's output, where it puts out a tensor."""
    if isinstance(module, nn.Linear):
        return first.numel() // _shape(module)[1]
    return output.numel() // _shape(module)[0] if isinstance(module, nn.Conv2d) and isinstance(output, Tensor) else 0


def _shape(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's weight, which may be made from others."""
    weight = module.weight
    assert isinstance(weight, Tensor)
    return tuple(weight.shape)


def told(reference: str, found: Inspected) -> list[str]:
    """Return lines on which of a network's layers has which shape, on those left out, and on those left dense."""
    lines = [f"{reference}, {found.shape}, has these linear layers:"]
    lines += [f"  {shape}: {', '.join(map(_called, layers))}" for shape, layers in found.by_shape.items()]
    if found.never_called:
        lines.append(f"  left out, as the forward pass never calls them: {', '.join(found.never_called)}")
    if left := [layer.name for layer in found.exchangeable if layer.kernel]:
        lines.append(f"  left dense, as convolutions are timed by `python -m bench advise` alone: {', '.join(left)}")
    return lines + [f"  left dense in the whole of it: {one}" for one in found.left_dense]


def _called(layer: Linear) -> str:
    often = f" ({len(layer.rows)} calls)" * (len(layer.rows) > 1)
    return f"{' = '.join(layer.names)}{often}"
