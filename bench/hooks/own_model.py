"""`--model` and `--mask`: a network of the user's, whose layers have the shapes that are measured, and whose whole is too."""

from typing import Any

import pytest

from bench import grids
from bench.models.layers import inspected, told
from bench.models.loading import FORM
from bench.models.selected import NONE, own_model
from bench.selection import Selection
from sparse_models.errors import AbsentError, InputError

NOT_BESIDE = ("--shape", "--skew", "--data", "--protocol", "--distribution", "--seeds")  # what a model's cases do not follow


def add_model_options(group: Any) -> None:
    """Add the options to a pytest option group."""
    group.addoption(
        "--model",
        metavar=FORM.upper(),
        help=f"a function of yours, {FORM} or path/to/file.py:function, that returns a module and an example batch: its "
        f"linear layers are measured, and its whole; default of --op beside it: {', '.join(grids.DEFAULT_OPS_OF_A_MODEL)}",
    )
    group.addoption(
        "--mask", metavar="FILE", help="masks of your own for --model, by the names of layers: .npz or .safetensors"
    )


def with_model(config: pytest.Config, selection: Selection) -> Selection:
    """Return a selection with the network that the command line names; raises pytest.UsageError for bad input."""
    reference, mask, is_asked = (config.getoption(option) for option in ("--model", "--mask", "--op"))
    whole = [op for op in grids.OF_A_MODEL if op in selection.ops]
    if reference is None:
        if mask is not None or (is_asked and whole):
            option, what = ("--op", whole[0]) if mask is None else ("--mask", mask)
            raise pytest.UsageError(
                f"{option}: expected --model beside {what}, got none; name the function that returns your model"
            )
        return selection
    for option in NOT_BESIDE:
        if config.getoption(option) is not None:
            raise pytest.UsageError(f"{option}: expected none beside --model, whose layers have their own; leave one out")
    if is_asked and "train" in selection.ops:
        raise pytest.UsageError(
            "--op: expected operations of layers or of a whole model beside --model, got train; leave it out"
        )
    try:
        own, found = own_model(reference, NONE if mask is None else mask)
    except (InputError, AbsentError) as error:
        named = mask is not None and str(error).partition(":")[0].startswith(mask)
        raise pytest.UsageError(f"{'--mask' if named else '--model'}: {error}") from None
    if own.sparsity is not None and selection.sparsities is not None:
        raise pytest.UsageError(f"--sparsity: expected none beside masks, whose own is {own.sparsity:g}; leave it out")
    if is_asked and "model_step" in whole and not own.can_learn:
        raise pytest.UsageError(
            "--op: expected a model whose output depends on parameters for model_step, got one of constants"
        )
    ops = tuple(op for op in selection.ops if op != "train")
    return selection._replace(ops=ops, shapes=tuple(found.by_shape), model=own)


def layers_told(selection: Selection) -> list[str]:
    """Return sentences on the layers of the network that is measured, if there is one."""
    own = selection.model
    return [] if own is None else told(own.reference, inspected(own.reference))


def layers_by_shape(selection: Selection) -> dict[str, list[str]] | None:
    """Return the names of a network's layers by the shape in which they are measured; None where there is no network."""
    own = selection.model
    if own is None:
        return None
    return {shape: [layer.name for layer in layers] for shape, layers in inspected(own.reference).by_shape.items()}
