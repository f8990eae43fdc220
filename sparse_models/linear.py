"""An nn.Linear in, what a sparse layer is built from out; and what such a layer cannot take over, refused by name."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, strided
from torch._C import (
    _are_functorch_transforms_active,
    _disabled_torch_dispatch_impl,
    _is_tracing,  # torch.jit.is_tracing without a look at TorchScript, which takes as long again
)
from torch._C import _len_torch_dispatch_stack as count_of_modes
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils import parametrize, prune

from sparse_models.errors import InputError, checked

if TYPE_CHECKING:
    from typing_extensions import Self

HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


class Convertible(nn.Module):
    """What every sparse layer is made from, and made into: an nn.Linear."""

    values: nn.Parameter  # the stored weights, in whatever shape the layer likes
    bias: nn.Parameter | None

    @classmethod
    @checked
    def from_linear(cls, linear: nn.Linear, mask: Tensor | None = None) -> "Self":
        """Build from a copy of an nn.Linear and a mask [out, in], bool or of zeros and ones; None keeps all.

        One pruned by `torch.nn.utils.prune` brings its mask. Device, dtype, mode and what is frozen stay. Raises InputError for
        hooks, parametrizations and subclasses that do something else, and as the constructor does.
        """
        check_plain(linear, nn.Linear)
        check_movable(linear)
        weight, bias = parameter_of(linear), linear.bias
        layer = cls(weight, mask_of(linear, mask), bias)
        layer.values.requires_grad_(weight.requires_grad)
        if bias is not None and layer.bias is not None:
            layer.bias.requires_grad_(bias.requires_grad)
        return layer.train(linear.training)

    def to_linear(self) -> nn.Linear:
        """Return an nn.Linear with a copy of the weights [out, in], 0 outside the mask; raises InputError for hooks."""
        check_movable(self)
        bias = None if self.bias is None else nn.Parameter(self.bias.detach().clone(), self.bias.requires_grad)
        return as_linear(nn.Parameter(self.to_dense(), self.values.requires_grad), bias).train(self.training)

    def hold(self, values: Tensor) -> None:
        """Put other values, of any shape, into the parameter.

        While a graph from before lives, as that of a loss that is kept to be printed, autograd expects gradients of the shape
        that the parameter had then. It lets go of that where the number type is another.
        """
        if values.shape != self.values.shape:
            self.values.grad = None
            self.values.data = values.new_empty(0, dtype=torch.float64 if values.dtype == torch.float32 else torch.float32)
        self.values.data = values

    @property
    def is_watched(self) -> bool:
        """Whether a hook, its own or of all modules, waits for the layer to be called, or another function is its forward."""
        return are_watched((vars(self),))

    def to_dense(self) -> Tensor:
        """Return the weight [out, in] with exact zeros outside the mask."""
        raise NotImplementedError

    def restructure(self, saved: Mapping[str, Tensor]) -> None:
        """Make room for a saved state, by the names of the layer's own tensors, of another mask.

        Raises InputError, before anything is changed, for one of other sizes.
        """
        raise NotImplementedError

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take a saved state, of any mask: the gradient of weights in other places is dropped."""
        saved = {name: state_dict[prefix + name] for name in (*self._parameters, *self._buffers) if prefix + name in state_dict}
        is_same = all(_are_equal(own, saved[name]) for name, own in self._buffers.items() if name in saved)
        self.restructure(saved)
        if not is_same:
            self.values.grad = None
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _are_equal(own: Tensor | None, saved: Tensor) -> bool:
    if own is None or own.is_meta or own.shape != saved.shape:
        return False
    return bool((own == saved.to(own.device)).all())


def are_watched(attributes: Iterable[Mapping[str, Any]]) -> bool:
    """Tell whether a hook waits for a module of which `vars` gave these, or for all, or another function is its forward."""
    if _has_any_global_hook():
        return True
    for own in attributes:  # of each what it has now: it may have been given other dictionaries, without hooks
        if own["_forward_hooks"] or own["_forward_pre_hooks"] or own["_backward_hooks"] or own["_backward_pre_hooks"]:
            return True
        if "forward" in own:
            return True
    return False


def is_traced(x: Tensor) -> bool:
    """Tell whether torch traces what is called now, or x stands for other numbers: that is to see operators, no kernels."""
    if is_compiling() or _is_tracing() or count_of_modes() > 0:
        return True
    # As `is_transformed`, which would ask again whether it is compiled: that takes a hundredth of a small product.
    if _are_functorch_transforms_active() or forward_ad._current_level >= 0:  # noqa: SLF001
        return True
    return not is_memory(x)


def is_transformed() -> bool:
    """Tell whether torch takes derivatives forwards, or torch.func transforms what is called: of both kernels know nothing."""
    if is_compiling():  # which cannot look at the level
        return False
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0  # noqa: SLF001  # no public name


def is_memory(tensor: Tensor) -> bool:
    """Tell whether a tensor's numbers lie at its address, and are not those of others that it stands for.

    They are not in a FakeTensor, a DTensor or any other class that decides itself what operators do, nor in what is being made
    functional; zeros that autograd writes down as none have no address, nor has what is in no strides.
    """
    kind = type(tensor)
    if kind is not Tensor and kind is not nn.Parameter and kind.__torch_dispatch__ is not _disabled_torch_dispatch_impl:
        return False
    try:  # to ask for the layout takes as long again
        return tensor.data_ptr() != 0 or tensor.numel() == 0
    except RuntimeError:
        return False


def check_plain(module: nn.Module, plain: type[nn.Module]) -> None:
    """Raise InputError unless a module is one of a class, or of a subclass that does no more in its forward pass."""
    if not isinstance(module, plain) or type(module).forward is not plain.forward:
        raise InputError(
            f"expected nn.{plain.__name__}, got {type(module).__name__}, which may do something else; take another"
        )


def check_movable(module: nn.Module) -> None:
    """Raise InputError for parametrizations, hooks and weights to be, which cannot be taken over.

    The hook of `torch.nn.utils.prune` on the weight is one that may be there.
    """
    if parametrize.is_parametrized(module):
        raise InputError(
            f"expected a module without parametrizations, got some of {', '.join(module.parametrizations)}; "  # type: ignore[arg-type]
            "call torch.nn.utils.parametrize.remove_parametrizations first"
        )
    for parameter in module.parameters(recurse=False):
        if nn.parameter.is_lazy(parameter):
            raise InputError(
                f"expected weights, got {type(module).__name__} that has none yet; call the model once with an example first"
            )
    for hook in hooks(module):
        if not isinstance(hook, prune.BasePruningMethod):
            called = getattr(hook, "__qualname__", type(hook).__qualname__)
            raise InputError(
                f"expected a module without hooks, got hook {called!r}; remove it, and register it on what is made"
            )
        if hook._tensor_name != "weight":  # noqa: SLF001  # torch has no public name for it
            raise InputError(
                f"expected pruning of the weight alone, got {hook._tensor_name!r} pruned; call prune.remove on it"  # noqa: SLF001
            )


def hooks(module: nn.Module) -> Iterator[object]:
    """Yield what waits for a module to be called, saved or loaded."""
    for held in HOOKS:
        yield from getattr(module, held).values()


def parameter_of(module: nn.Module) -> nn.Parameter:
    """Return the parameter that a module's weight is, or is made from where `torch.nn.utils.prune` pruned it."""
    own: nn.Parameter = module.get_parameter("weight_orig" if "weight_orig" in module._parameters else "weight")  # noqa: SLF001
    return own


def pruned_mask(module: nn.Module) -> Tensor | None:
    """Return the mask of zeros and ones [of the weight's shape] that `torch.nn.utils.prune` left, None where it did not."""
    return module._buffers.get("weight_mask")  # noqa: SLF001


def bool_mask(mask: Any, weight: Tensor) -> Tensor:
    """Return a bool mask, or one of zeros and ones of any dtype, as bool on the weight's device [of the weight's shape].

    It may be any array, also a sparse one of torch or SciPy. Raises InputError for another shape and for other numbers.
    """
    if not isinstance(mask, Tensor):
        try:
            mask = torch.tensor(mask.toarray() if hasattr(mask, "toarray") else mask)  # a copy, as it may be read-only
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"expected a mask that is a tensor or an array, got {type(mask).__name__}; convert it") from None
    own: Tensor = mask if mask.layout is strided else mask.to_dense()
    if own.is_meta:
        raise InputError("expected a mask of True and False, got a tensor on the meta device, which has none; load it first")
    if own.shape != weight.shape:
        raise InputError(
            f"expected a mask of shape {list(weight.shape)}, as the weight has, got {list(own.shape)}; take another"
        )
    if own.dtype != torch.bool and not bool(((own == 0) | (own == 1)).all()):
        raise InputError(
            "expected a mask of True and False, or of 1 and 0, got other numbers; compare a score with a threshold"
        )
    return own.to(weight.device) != 0


def mask_of(module: nn.Module, mask: Tensor | None) -> Tensor:
    """Return the mask of a module's weight [of its shape] as bool: the one given, or `torch.nn.utils.prune`'s, or all True."""
    weight, pruned = parameter_of(module), pruned_mask(module)
    if mask is not None and pruned is not None:
        raise InputError(
            "expected one mask, got one beside that of torch.nn.utils.prune; call torch.nn.utils.prune.remove first"
        )
    if mask is None and pruned is None:
        return torch.ones_like(weight, dtype=torch.bool)
    return bool_mask(mask if pruned is None else pruned, weight)


def as_linear(weight: nn.Parameter, bias: Tensor | None) -> nn.Linear:
    """Return an nn.Linear that holds weight [out, in] and bias [out] or None, in their dtype and on their device."""
    outputs, inputs = weight.shape
    linear = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    linear.weight = weight
    if bias is not None:
        linear.bias = bias  # type: ignore[assignment]  # a parameter, which torch types as a tensor
    return linear
