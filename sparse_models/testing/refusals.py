"""What a gate says of a layer that fails it, in one sentence."""

import math

from torch import Tensor

from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.testing.definition import Term


def require_close(layer_class: type[SparseLinear], what: str, actual: Tensor | None, term: Term) -> None:
    """Raise GateError unless a tensor is, at every entry that the definition tells, as near to it as rounding leaves it."""
    if actual is None or list(actual.shape) != term.shape or actual.dtype != term.dtype:
        shape = None if actual is None else f"{list(actual.shape)} of {actual.dtype}"
        raise GateError(
            f"{layer_class.__name__}: {what}: expected shape {term.shape} of {term.dtype}, got {shape}; nothing is timed"
        )
    told = actual.detach() if term.part is None else term.part.of(actual.detach())
    error = (told.double() - term.value).abs()
    if not bool((error <= term.allowed).all()):  # written so that NaN fails
        worst = int((error - term.allowed).nan_to_num(math.inf).argmax())
        raise GateError(
            f"{layer_class.__name__}: {what}: expected {term.value.flatten()[worst]:.6g} by the definition, "
            f"got {told.flatten()[worst]:.6g}, more than rounding explains; nothing is timed"
        )


def require(layer_class: type[SparseLinear], what: str, *, holds: bool) -> None:
    """Raise GateError unless what the definition says of `what` holds."""
    if not holds:
        raise GateError(f"{layer_class.__name__}: {what}: expected what the definition says, got another; nothing is timed")
