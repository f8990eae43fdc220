"""What the command line asks of a network of the user's in, what a selection holds of it out."""

from pathlib import Path

from torch import Tensor

from bench.models.layers import Inspected, inspected
from bench.models.loading import load
from bench.models.masks import read_masks
from bench.selection import OwnModel
from sparse_models.errors import InputError

NONE = "-"  # as a case says it
DIGITS = 4  # of the sparsity of masks: a case is named by it


def own_model(reference: str, mask: str = NONE) -> tuple[OwnModel, Inspected]:
    """Return a network and its layers; raises InputError for what cannot be loaded, run or read."""
    found = inspected(reference)
    if not found.layers:
        raise InputError(
            f"expected {reference} to return a module that calls an nn.Linear, got convolutions alone; python -m bench advise "
            "times those"
        )
    own, masks = OwnModel(reference, found.shape, found.can_learn), masks_of(reference, mask)
    if not masks:
        return own, found
    by_shape: dict[str, list[float]] = {}
    for shape, layers in found.by_shape.items():
        held = [sparsity_of(masks[layer.name]) for layer in layers if layer.name in masks]
        if held:
            by_shape[shape] = sorted(set(held))
    sparsities = tuple((shape, tuple(each)) for shape, each in by_shape.items())
    return own._replace(mask=mask, sparsity=sparsity_of(*masks.values()), sparsities=sparsities), found


def masks_of(reference: str, file: str = NONE, *, convolutions: bool = False) -> dict[str, Tensor]:
    """Return the masks [of the weight's shape] of a network by the names of its layers, linear ones unless more is asked for.

    They are those in a file, or those that it was pruned by.
    """
    example, found = load(reference), inspected(reference)
    layers = found.exchangeable if convolutions else found.sparse
    first = {name: layer.name for layer in layers for name in layer.names}
    modules = {name: example.module.get_submodule(name) for name in first}
    masks = example.masks if file == NONE else read_masks(Path(file), modules)
    return {first[name]: mask for name, mask in masks.items() if name in first}


def sparsity_of(*masks: Tensor) -> float:
    """Return the fraction of zeros of all masks together, to a few digits."""
    kept, total = (sum(each) for each in ([int(mask.sum()) for mask in masks], [mask.numel() for mask in masks]))
    return round(1 - kept / total, DIGITS)
