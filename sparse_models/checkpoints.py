"""A training after an epoch in, a file out, and back: it goes on to the same losses, in whatever storage its layers are.

Of each layer the file holds the mask, the kept weights and the optimizer's state of them, whatever the layer's own structure.
"""

import io
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse_models.errors import InputError
from sparse_models.layers import SparseLinear
from sparse_models.layers._checks import check_move, check_own
from sparse_models.mutation import Mutation

FORM = 1  # of the file's content; another reads as none
DIGEST = 32  # bytes of SHA-256 in front of what torch.save wrote, whose own sums torch.load does not look at


class Training(NamedTuple):
    """What a training consists of between two epochs; `arguments` are what tells it from any other."""

    arguments: str
    mutation: Mutation  # which knows model and optimizer
    generators: Sequence[torch.Generator]
    losses: list[Tensor]  # [steps] of each epoch so far


def save(path: Path, training: Training) -> None:
    """Write a training to a file, whole or not at all."""
    mutation = training.mutation
    content = {
        "form": FORM,
        "arguments": training.arguments,
        "losses": training.losses,
        "generators": [generator.get_state() for generator in training.generators],
        "layers": [_saved(layer, mutation) for layer in mutation.model],
        "early": mutation.early,
    }
    written = io.BytesIO()
    torch.save(content, written)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        part.write_bytes(sha256(written.getvalue()).digest() + written.getvalue())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def resume(path: Path, training: Training) -> None:
    """Bring a training that has not begun to where the one in a file was.

    Raises InputError, one sentence, before anything is changed, for a file that is damaged, or of another training, and for
    layers that cannot be moved.
    """
    advice = "remove it to start anew, or name another file"
    try:
        whole = path.read_bytes()
        digest, written = whole[:DIGEST], whole[DIGEST:]
        if sha256(written).digest() != digest:
            raise ValueError("another digest")
        device = next(training.mutation.model.parameters()).device
        content = torch.load(io.BytesIO(written), map_location=device, weights_only=True)
        if content["form"] != FORM:
            raise ValueError("another form")
        of_another = content["arguments"] != training.arguments
    except Exception as error:  # what is no checkpoint raises errors of many types
        raise InputError(f"expected a checkpoint at {path}, got a file that cannot be read as one; {advice}") from error
    if of_another:
        raise InputError(
            f"expected a checkpoint of this training at {path}, got one of another: {content['arguments']}, not "
            f"{training.arguments}; {advice}"
        )
    check_own(dict.fromkeys(training.mutation.model, ()), in_place=False)
    try:
        layers = list(zip(training.mutation.model, content["layers"], strict=True))
        for layer, saved in layers:
            _check(layer, saved)
        for generator, state in zip(training.generators, content["generators"], strict=True):
            generator.set_state(state.cpu())
        for layer, saved in layers:
            _restore(layer, saved, training.mutation)
        training.losses.extend(content["losses"])
        training.mutation.early = content["early"]
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"expected a checkpoint of this model at {path}, got one of another; {advice}") from error


def _saved(layer: SparseLinear, mutation: Mutation) -> dict[str, Any]:
    """Return a layer's mask [out, in], kept weights [kept], bias and optimizer state."""
    mask, state = layer.mask, mutation.optimizer.state

    def packed(value: Any) -> Any:
        return layer.unpack(value)[mask] if isinstance(value, Tensor) and value.shape == layer.values.shape else value

    return {
        "mask": mask,
        "weight": layer.to_dense()[mask],
        "bias": None if layer.bias is None else layer.bias.detach(),
        "of_weight": {name: packed(value) for name, value in state.get(layer.values, {}).items()},
        "of_bias": {} if layer.bias is None else dict(state.get(layer.bias, {})),
        "average": mutation.averages.get(layer),
    }


def _check(layer: SparseLinear, saved: dict[str, Any]) -> None:
    """Raise ValueError unless a layer can be brought to what is saved."""
    check_move(layer, saved["mask"], None, in_place=False)
    shapes = [None if held is None else held.shape for held in (saved["weight"], saved["bias"], layer.bias)]
    if shapes[0] != (int(saved["mask"].sum()),) or shapes[1] != shapes[2]:
        raise ValueError("another number of weights")


@torch.no_grad()
def _restore(layer: SparseLinear, saved: dict[str, Any], mutation: Mutation) -> None:
    mask, weight, state = saved["mask"], saved["weight"], mutation.optimizer.state
    layer.move(mask, ask=False)

    def spread(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.shape != weight.shape:
            return value
        dense = torch.zeros(mask.shape, dtype=value.dtype, device=value.device)
        dense[mask] = value
        return layer.pack(dense)

    layer.values.copy_(spread(weight))
    if layer.bias is not None:
        layer.bias.copy_(saved["bias"])
    for parameter, name in ((layer.values, "of_weight"), (layer.bias, "of_bias")):
        if parameter is not None and saved[name]:
            state[parameter] = {
                name: spread(value) if parameter is layer.values else value for name, value in saved[name].items()
            }
    if saved["average"] is not None:
        mutation.averages[layer] = saved["average"]
