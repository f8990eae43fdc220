"""An nn.Sequential in, the same one out, whose sparse layers with ReLU between them infer in one call of their kernels."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparse_models.layers import SparseLinear
from sparse_models.linear import are_watched, is_memory, is_traced

CHAIN = re.compile("L(?:n*R[Rn]*L)+")  # layers, ReLUs, and what does nothing: at least two layers


class SparseSequential(nn.Sequential):
    """An nn.Sequential that `sparsify` has put sparse layers in: wherever nothing else is asked of it, it is one.

    Without gradients, chains of sparse layers with ReLU between them, also in nn.Sequential inside it and with nn.Identity and
    nn.Dropout in `eval()` among them, are one call (`SparseLinear.chain_output`), with the output of layer by layer but for
    rounding. With a hook on any module of a chain, while torch traces, and for what is no plain tensor, it goes layer by layer.
    """

    _plan: "_Plan | None" = None

    def forward(self, x: Any) -> Any:
        """Return what the last module makes of what the one before makes ... of x."""
        if type(x) is not Tensor or torch.is_grad_enabled() or is_traced(x):
            return super().forward(x)  # type: ignore[no-untyped-call]
        plan = self._plan  # another thread may make another
        if plan is None or not plan.is_current():
            plan = self._plan = _Plan(self)
        if are_watched(plan.watched):
            return super().forward(x)  # type: ignore[no-untyped-call]
        for step in plan.steps:
            x = step(x)
        return x

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_plan": None}  # made anew where needed


class _Chain:
    """Sparse layers with ReLU between them, and the modules that they stand among."""

    def __init__(self, modules: Sequence[nn.Module], *, is_first: bool) -> None:
        """Hold modules, the first and the last of which are layers; the first chain of all is given what was looked at."""
        self.modules, self.is_first = modules, is_first
        self.layers = [module for module in modules if isinstance(module, SparseLinear)]

    def __call__(self, x: Any) -> Any:
        """Return what the modules make of x [..., in]: [..., out]."""
        if type(x) is Tensor and x.dim() and (self.is_first or is_memory(x)):
            flat = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
            whole = self.layers[0].chain_output(self.layers, flat)
            if whole is not None:
                return whole if x is flat else whole.reshape(*x.shape[:-1], whole.shape[1])
        for module in self.modules:
            x = module(x)
        return x


class _Plan:
    """What is called in turn for an nn.Sequential, and by what it is seen to have changed."""

    def __init__(self, whole: nn.Sequential) -> None:
        """Make it of what is there now."""
        found = list(_inside(whole))
        inner = [module for module in found if _is_sequential(module)]
        self.held = [(module, list(module._modules.values())) for module in (whole, *inner)]  # noqa: SLF001  # in less time
        leaves = [module for module in found if not _is_sequential(module)]
        self.drops = [module for module in leaves if type(module) is nn.Dropout]
        self.modes = [module.training for module in self.drops]
        self.steps, at = list[Any](), 0
        watched = inner
        for chain in CHAIN.finditer("".join(map(_kind, leaves))):
            self.steps += [*leaves[at : chain.start()], _Chain(leaves[chain.start() : chain.end()], is_first=not chain.start())]
            watched += leaves[chain.start() : chain.end()]
            at = chain.end()
        self.steps += leaves[at:]
        self.watched = [vars(module) for module in watched]  # those that would not be called

    def is_current(self) -> bool:
        """Tell whether the same modules are there, and as many of them in training."""
        there = all([*module._modules.values()] == before for module, before in self.held)  # noqa: SLF001
        return there and [module.training for module in self.drops] == self.modes


def fit_sequences(model: nn.Module) -> None:
    """Make each nn.Sequential of a model that has a chain of sparse layers infer it in one call, and each other a plain one."""
    for module in model.modules():
        if _is_sequential(module):
            leaves = [inner for inner in _inside(module) if not _is_sequential(inner)]
            kinds = "".join("n" if type(leaf) is nn.Dropout else _kind(leaf) for leaf in leaves)
            module.__class__ = SparseSequential if CHAIN.search(kinds) else nn.Sequential


def _is_sequential(module: nn.Module) -> bool:
    return type(module) in (nn.Sequential, SparseSequential)


def _inside(whole: nn.Module) -> Iterator[nn.Module]:
    """Yield what is called in turn, and each nn.Sequential of it before what that calls."""
    for module in whole._modules.values():  # noqa: SLF001  # children() leaves out repeats
        assert module is not None
        yield module
        if _is_sequential(module):
            yield from _inside(module)


def _kind(module: nn.Module) -> str:
    """Return the letter that stands for a module in CHAIN."""
    if isinstance(module, SparseLinear):
        return "L"
    does_nothing = type(module) is nn.Identity or (type(module) is nn.Dropout and not module.training)
    return "R" if type(module) is nn.ReLU else "n" if does_nothing else "x"
