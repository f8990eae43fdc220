"""A model of sparse layers and its optimizer in: fewer weights step by step while the user's own loop trains them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sparse_models.errors import InputError, checked
from sparse_models.layers import SparseLinear
from sparse_models.layers._checks import check_own
from sparse_models.masks import DISTRIBUTIONS, check_sparsity
from sparse_models.sparsification.choice import CRITERIA, choose
from sparse_models.sparsification.convolution import SparseConv2d
from sparse_models.sparsification.places import sparse_layers
from sparse_models.updates import Move, move_masks


def cubic(initial: float, final: float, progress: float) -> float:
    """Return the sparsity at a progress in [0, 1]: fast at first, then slowly (Zhu and Gupta 2017, arXiv:1710.01878)."""
    return final + (initial - final) * (1 - progress) ** 3


class GradualPruner:
    """Prunes the sparse layers of a model to a sparsity while it is trained: call `step` once after each optimizer step.

    Weights go at steps `begin`, `begin` + `every` ... and `end`, the smallest first; what is gone stays so, and the moments of
    the others follow in the optimizer. Begin with `sparsify(model, sparsity=0, optimizer=optimizer)`.
    """

    @checked
    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        sparsity: float,
        end: int,
        begin: int = 0,
        every: int = 1,
        distribution: str = "uniform",
        by: str = "magnitude",
        generator: torch.Generator | None = None,
    ) -> None:
        """Take the layers as they are; `distribution` and `by` are those of `sparsify`.

        Raises InputError for a model without sparse layers, for layers of a pattern that has only some sparsities or that
        layers cannot keep by themselves, for an optimizer that trains no weight of them, and for steps that are not in order.
        """
        self.model, self.optimizer, self.generator = model, optimizer, generator
        self.begin, self.end, self.every = begin, end, every
        self.steps = 0  # taken so far; to go on with a saved training, set it
        if not 0 <= begin <= end or min(end, every) < 1:
            raise InputError(
                f"expected 0 <= begin <= end, and end and every of at least 1, got begin={begin}, end={end}, every={every}; "
                "change them"
            )
        self.layers = list(sparse_layers(model).values())
        if not self.layers:
            raise InputError("expected a model with sparse layers, got none; call sparsify(model, sparsity=0) first")
        if optimizer is not None:
            trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
            # Biases stay the same parameters where a layer is exchanged, and say nothing of its weights.
            own = [one for layer in self.layers for name, one in layer.named_parameters() if name != "bias"]
            if any(one.requires_grad for one in own) and trained.isdisjoint(own):
                raise InputError(
                    "expected an optimizer of the model's parameters, got one that has no weights of its sparse layers; give "
                    "it to sparsify, or make it afterwards"
                )
        for pattern in {layer.pattern for layer in self.layers}:
            if pattern.sparsities is not None or pattern.of_network is not None:
                raise InputError(f"expected layers of any sparsity, got pattern {pattern.name!r}; take tiled or block16")
        self.criterion = CRITERIA.find(by)
        self.initial = [layer.pattern.sparsity_of(layer.mask) for layer in self.layers]
        self.final = DISTRIBUTIONS.find(distribution)(_shapes(model, self.layers), check_sparsity(sparsity))
        self.early: dict[Tensor | SparseLinear, Tensor] = {}

    @property
    def is_due(self) -> bool:
        """Whether the step taken last is one after which weights go."""
        between = self.begin <= self.steps <= self.end
        return self.steps == self.end or (between and (self.steps - self.begin) % self.every == 0)

    def step(self) -> bool:
        """Count an optimizer step and, where that is due, prune; return whether weights went."""
        self.steps += 1
        if not self.is_due:
            return False
        progress = 1.0 if self.end == self.begin else (self.steps - self.begin) / (self.end - self.begin)
        try:
            return self.prune(progress)
        except InputError:
            self.steps -= 1  # whoever mends what is in the way can call it again
            raise

    @torch.no_grad()
    def prune(self, progress: float) -> bool:
        """Prune to where the schedule is at a progress in [0, 1]; return whether weights went.

        Raises InputError, before any goes, where a layer cannot be moved, as one whose values are another's too, or where it is
        no longer in the model.
        """
        self._check_there(self.layers)
        masks = [layer.mask for layer in self.layers]
        scores = [
            self.criterion.score(layer.to_dense(), self.generator).masked_fill_(~mask, -1)  # below all that are kept
            for layer, mask in zip(self.layers, masks, strict=True)
        ]
        sparsities = [cubic(*ends, progress) for ends in zip(self.initial, self.final, strict=True)]
        patterns = [layer.pattern for layer in self.layers]
        chosen = choose(scores, patterns, sparsities, together=self.criterion.together)
        moves = [
            Move(layer, mask & before)
            for layer, before, mask in zip(self.layers, masks, chosen, strict=True)
            if not torch.equal(mask & before, before)
        ]
        move_masks(moves, self.optimizer)
        return bool(moves)

    @torch.no_grad()
    def remember(self) -> None:
        """Keep a copy of all weights as they are now, for `rewind`."""
        layers = sparse_layers(self.model)
        own = {layer.values for layer in layers.values()}
        self.early = {layer: layer.to_dense() for layer in layers.values()}
        self.early |= {parameter: parameter.detach().clone() for parameter in self.model.parameters() if parameter not in own}
        structure = {buffer for layer in layers.values() for buffer in layer.buffers()}
        self.early |= {buffer: buffer.clone() for buffer in self.model.buffers() if buffer not in structure}

    @torch.no_grad()
    def rewind(self) -> None:
        """Set all weights that are kept back to those of `remember`, and forget optimizer state (Frankle et al. 2020).

        That is arXiv:1912.05671: the mask is the trained net's, the weights are early ones. Raises InputError without a copy,
        and, before anything is changed, where a layer's values are no longer its own, or it is no longer in the model.
        """
        if not self.early:
            raise InputError("expected a copy of early weights, got none; call remember() at the step to go back to")
        layers = [held for held in self.early if isinstance(held, SparseLinear)]
        self._check_there(layers)
        check_own(dict.fromkeys(layers, ()), in_place=False)
        for held, early in self.early.items():
            if isinstance(held, SparseLinear):
                held.values.copy_(held.pack(early))
            else:
                held.copy_(early)
        if self.optimizer is not None:
            self.optimizer.state.clear()

    def _check_there(self, layers: Sequence[SparseLinear]) -> None:
        if not set(layers) <= set(sparse_layers(self.model).values()):
            raise InputError(
                "expected the sparse layers that the model had before, got others in their place (densified, or sparsified "
                "anew); make another GradualPruner"
            )


def _shapes(model: nn.Module, layers: Sequence[SparseLinear]) -> list[tuple[int, ...]]:
    """Return the shape of each layer's weight, a convolution's with its kernel."""
    of_conv = {module.linear: module.weight_shape for module in model.modules() if isinstance(module, SparseConv2d)}
    return [of_conv.get(layer, (layer.out_features, layer.in_features)) for layer in layers]
