"""A training's case in, its dense network out, whose steps are eager, compiled, or under autocast, and the gate of those."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from bench.cases import Case
from bench.shapes import Shape
from bench.works.compiled import COMPILED, compiled, load_compiler
from bench.works.once_per_run import KNOWN, find_once
from bench.works.problems import LAYOUTS
from bench.works.reference import dense_case, training_key
from sparse_models.data import Split
from sparse_models.errors import GateError
from sparse_models.models import MLP
from sparse_models.testing import away_from_corners, gate_loss

EAGER, AUTOCAST = "eager", "autocast"


def variant_of(case: Case) -> str:
    """Return whether the dense steps of a training are eager or compiled: as asked for, or whichever was found the faster.

    Without a run's search, as where every body is run once, they are eager.
    """
    if case.model in (EAGER, COMPILED):
        return case.model
    fastest, _ = KNOWN.get(training_key(dense_case(case)), (LAYOUTS[0], 1.0))
    return COMPILED if fastest == COMPILED else EAGER


class DenseTraining(MLP):
    """Dense layers whose loss is compiled for whole batches, computed in bfloat16 under autocast, or both.

    Under autocast weights and their updates stay as they are, and products are computed from bfloat16 copies of both factors
    (Micikevicius et al. 2018, arXiv:1710.03740). The odd last batch of an epoch goes eagerly.
    """

    def __init__(self, model: MLP, batch: int, *, is_compiled: bool, is_cast: bool) -> None:
        """Take the layers of a dense model, to be trained in batches of so many samples."""
        super().__init__(model)
        if is_compiled:
            load_compiler()  # which warns of itself as it is imported
        self.batch, self.is_cast = batch, is_cast
        self._compiled: Callable[..., Tensor] | None = compiled(MLP(self).cross_entropy) if is_compiled else None

    def cross_entropy(self, x: Tensor, labels: Tensor, *, fused: bool = True) -> Tensor:
        """Return the mean cross-entropy for x [batch, in] and labels [batch]."""
        loss = self._compiled if self._compiled and len(labels) == self.batch else super().cross_entropy
        if not self.is_cast:
            return loss(x, labels, fused=fused)
        with torch.autocast(x.device.type, torch.bfloat16):
            return loss(x, labels, fused=fused)

    def load(self, samples: Split) -> None:
        """Compile, or load what lies compiled, by a pass in both directions that leaves no trace: that is not training time."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch's compiler uses what PyTorch says not to use
            torch.autograd.grad(self.cross_entropy(*_first(samples, self.batch)), list(self.parameters()))


def trained_as(case: Case, model: MLP, *, is_eager: bool = False) -> MLP:
    """Return the dense model of a case as its steps are to be taken; eager ones are those of the model itself."""
    is_compiled, is_cast = not is_eager and variant_of(case) == COMPILED, case.model == AUTOCAST
    if not is_compiled and not is_cast:
        return model
    return DenseTraining(model, Shape.parse(case.shape).batch, is_compiled=is_compiled, is_cast=is_cast)


def pass_dense_gate(case: Case, model: MLP, samples: Split) -> None:
    """Raise GateError, once a run, unless loss and gradients of a dense model trained in its own way are the definition's."""
    if not isinstance(model, DenseTraining):
        return
    chain = "x".join(map(str, (model.layers[0].in_features, *(layer.out_features for layer in model))))
    key = f"gate {chain} {case.model} {variant_of(case)} {dense_case(case)}"
    failure = find_once(key, lambda: _failure(model, samples))
    if failure is not None:
        raise GateError(failure)


def _failure(model: DenseTraining, samples: Split) -> str | None:
    inputs, labels = _first(samples, model.batch)
    layers = list(model)
    looked_at = away_from_corners(layers, inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = model.cross_entropy(looked_at, labels)
            gate_loss(layers, loss, looked_at, labels, torch.bfloat16 if model.is_cast else None)
    except GateError as error:
        return str(error)
    return None


def _first(samples: Split, count: int) -> tuple[Tensor, Tensor]:
    return samples.inputs[:count], samples.labels[:count]
