"""A network of the user's in, its linear layers out: each with its names, its shape, and what an example batch asks of it."""

from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.models.loading import Example, load, theirs
from bench.shapes import Shape
from sparse_models.errors import InputError
from sparse_models.sparsification.places import Wanted, candidates, places


class Linear(NamedTuple):
    """A linear layer as a network calls it: a single one, whatever the number of its names and calls."""

    names: tuple[str, ...]
    inputs: int
    outputs: int
    rows: tuple[int, ...]  # samples of each call in one forward pass
    has_input_gradient: bool  # whether a training computes one
    can_be_sparse: bool  # whether `sparsify` replaces it

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
    layers: list[Linear]  # those that a forward pass calls, in the module's order
    never_called: list[str]
    left_dense: list[str]  # sentences of `sparsify` on layers that it does not replace
    can_learn: bool  # whether there is an output of floating point that depends on a parameter

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
        """The layers that can be made sparse."""
        return [layer for layer in self.layers if layer.can_be_sparse]


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

    Raises InputError as `load` does, for what the forward pass raises, for another output, and where no linear layer is called.
    """
    return _inspected(reference, str(Path.cwd()))


@lru_cache(maxsize=4)
def _inspected(reference: str, _: str) -> Inspected:
    return inspect(reference, load(reference))


def inspect(reference: str, example: Example) -> Inspected:
    """Return what an example is: see `inspected`."""
    if isinstance(example.module, nn.Linear):
        raise InputError(
            f"expected {reference} to return a module that holds layers, got nn.Linear itself; put it in a Sequential"
        )
    own = example.copied
    found = places(own.module, (nn.Linear,))
    calls: dict[nn.Module, list[tuple[int, bool]]] = defaultdict(list)

    def note(module: nn.Module, inputs: tuple[Any, ...], _: object) -> None:
        if inputs and isinstance(inputs[0], Tensor) and inputs[0].numel():
            calls[module].append((inputs[0].numel() // inputs[0].shape[-1], inputs[0].requires_grad))

    hooks = [module.register_forward_hook(note) for module in found]
    with theirs(f"{reference}: the module's forward pass raised"), torch.random.fork_rng(devices=[]), torch.enable_grad():
        result = own.module.eval()(*own.batch)
    for hook in hooks:
        hook.remove()
    output = output_of(result)
    replaced, left_out = candidates(own.module, Wanted(None, (nn.Linear,), 0), {})
    layers = [
        Linear(
            tuple(place.name for place in at),
            module.in_features,  # type: ignore[arg-type]  # torch types attributes of modules as tensors or modules
            module.out_features,  # type: ignore[arg-type]
            tuple(rows for rows, _ in calls[module]),
            any(has_gradient for _, has_gradient in calls[module]),
            module in replaced,
        )
        for module, at in found.items()
        if calls[module]
    ]
    if not layers:
        never = f", and {len(found)} that it never calls" * bool(found)
        raise InputError(
            f"expected {reference} to return a module that calls an nn.Linear, got one without{never}; name another"
        )
    stays = {layer.name for layer in layers if not layer.can_be_sparse}
    samples = example.samples
    sizes = (own.batch[0].numel() // samples, max(1, output.numel() // samples))
    return Inspected(
        str(Shape(sizes, samples)),
        layers,
        [at[0].name for module, at in found.items() if not calls[module]],
        [one for one in left_out if stays & set(one.partition(":")[0].split(", "))],
        output.is_floating_point() and output.requires_grad,
    )


def told(reference: str, found: Inspected) -> list[str]:
    """Return lines on which of a network's layers has which shape, on those left out, and on those left dense."""
    lines = [f"{reference}, {found.shape}, has these linear layers:"]
    lines += [f"  {shape}: {', '.join(map(_called, layers))}" for shape, layers in found.by_shape.items()]
    if found.never_called:
        lines.append(f"  left out, as the forward pass never calls them: {', '.join(found.never_called)}")
    return lines + [f"  left dense in the whole of it: {one}" for one in found.left_dense]


def _called(layer: Linear) -> str:
    often = f" ({len(layer.rows)} calls)" * (len(layer.rows) > 1)
    return f"{' = '.join(layer.names)}{often}"
