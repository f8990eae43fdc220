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
    if not masks and mask != NONE:
        raise InputError(
            f"{mask}: expected a mask of an nn.Linear, got those of convolutions alone; python -m bench advise times those"
        )
    if not masks:
        return own, found
    by_shape: dict[str, list[float]] = {}
    for shape, layers in found.by_shape.items():
        held = [sparsity_of(masks[layer.name]) for layer in layers if layer.name in masks]
        if held:
            by_shape[shape] = sorted(set(held))
    sparsities = tuple((shape, tuple(each)) for shape, each in by_shape.items())
    return own._replace(mask=mask, sparsity=sparsity_of(*masks.values()), sparsities=sparsities), found


def given_masks(reference: str, file: str = NONE) -> dict[str, Tensor]:
    """Return the masks [of the weight's shape] of a network's layers, convolutions too.

    They are those in a file, by its own names, or those that it was pruned by, by the first of each layer's names.
    """
    example = load(reference)
    first = {name: layer.name for layer in inspected(reference).exchangeable for name in layer.names}
    if file == NONE:
        return {first[name]: mask for name, mask in example.masks.items() if name in first}
    return read_masks(Path(file), {name: example.module.get_submodule(name) for name in first})


def masks_of(reference: str, file: str = NONE) -> dict[str, Tensor]:
    """Return the masks [out, in] of a network's linear layers by the first of their names, from a file or as it was pruned."""
    first = {name: layer.name for layer in inspected(reference).sparse for name in layer.names}
    return {first[name]: mask for name, mask in given_masks(reference, file).items() if name in first}


def sparsity_of(*masks: Tensor) -> float:
    """Return the fraction of zeros of all masks together, to a few digits."""
    kept, total = (sum(each) for each in ([int(mask.sum()) for mask in masks], [mask.numel() for mask in masks]))
    return round(1 - kept / total, DIGITS)
