"""A network of the user's may be timed sparse once it agrees with itself dense under the same masks; and compiled, with eager.

Compared are the outputs of a forward pass and the gradients of every parameter, in norm. Where rounding decides on which side
of a corner of ReLU a number lies, gradients differ by the share of a sample. A few in a million are so near, so gradients are
held to fewer digits than outputs, and a network of few numbers that fails has other tries, with weights a little changed.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.models.layers import output_of
from bench.models.loading import Example
from bench.works.once_per_run import once_per_run
from bench.works.whole_models import chosen_masks, example_of, masked, output_gradient, sparsified
from sparse_models.errors import GateError
from sparse_models.layers import SparseLinear
from sparse_models.sparsification import SparseConv2d, densify, sparse_layers
from sparse_models.testing.exact import exact_products

OUTPUTS = OUTPUT, INFERENCE = "its output", "its output without a graph"  # what messages call them
TRIES, JITTER = 3, 1e-3  # with weights of their own, which differ by so much
OF_GRADIENTS, MOST = 30, 0.3  # times what outputs may differ by, and the most
FEW = 0.01  # of whole numbers: which of two classes is the likelier, rounding may decide
ROUNDINGS = 8  # times what rounding does to the dense one, where that is more: to a network of many layers it does much
UNDER_MASKS, AS_IT_IS = "that of the dense model under the same masks", "that of the model as it is"  # what is expected
NOTHING = 1e-3  # of the largest gradient: below it, one is as good as 0, as that of a bias before a normalisation is


def pass_model_gate(case: Case, *, learning: bool) -> None:
    """Raise GateError, before anything is timed, unless the case's sparse network does what it does dense under its masks."""
    shared = case._replace(op="-", regime="-")  # what the gate does not look at
    failure = _failure(shared, learning)
    if failure is not None:
        raise GateError(failure)


@once_per_run
def _failure(case: Case, learning: bool) -> str | None:  # noqa: FBT001  # it is a part of a key
    """Return why the network fails its gate, or None if it passes: found out once a run."""

    def sparse(module: nn.Module, masks: Mapping[str, Tensor]) -> nn.Module:
        return sparsified(module, masks, case.layer)

    def failed(attempt: int) -> str | None:
        try:
            gate_model(example_of(case), lambda module: chosen_masks(case, module), sparse, attempt, learning=learning)
        except GateError as error:
            return f"{case.layer}: {error}"
        return None

    first = failed(0)
    return None if first is None or any(failed(attempt) is None for attempt in range(1, TRIES)) else first


@exact_products()
def gate_model(
    example: Example,
    choose: Callable[[nn.Module], Mapping[str, Tensor]],
    sparse: Callable[[nn.Module, Mapping[str, Tensor]], nn.Module],
    attempt: int = 0,
    *,
    learning: bool,
) -> None:
    """Raise GateError unless `sparse(module, masks)` puts out what the module does whose weights outside `masks` are 0.

    With `learning` its gradients must agree as well. Attempts after the first change the example's weights a little.
    """
    if attempt:
        generator = torch.Generator().manual_seed(attempt)
        with torch.no_grad():
            for one in example.module.parameters():
                one.mul_(1 + JITTER * torch.randn(one.shape, generator=generator).to(one.device))
    masks = choose(example.module)
    own = example._replace(module=sparse(example.copied.module, masks))
    dense = example._replace(module=masked(example.module, masks))
    exact = dense.placed(str(dense.batch[0].device), torch.float64)
    try:
        found = _told(own, masks, learning=learning)
    except AttributeError as error:
        if not isinstance(error.obj, SparseLinear | SparseConv2d):
            raise
        raise GateError(
            f"expected a network that calls its layers, got one that reads {error.name!r} of a layer, which no sparse one has; "
            "call the layer there, or leave it dense (docs/own_network.md)"
        ) from None
    expected = _told(dense, masks, learning=learning)
    try:
        _require_alike(found, expected)
    except GateError as error:
        try:  # in float64 not every module runs
            rounded = _distances(expected, _told(exact, masks, learning=learning))
        except RuntimeError:
            raise error from None
        _require_alike(found, expected, rounded)


def _told(example: Example, masks: Mapping[str, Tensor], *, learning: bool) -> dict[str, Tensor]:
    """Return what is compared of a network, by what messages call it; its parameters are lost."""
    is_dense = not sparse_layers(example.module)
    # A sparse layer may go another way without a graph; so may a transformer of torch, which then fills padding with zeros.
    outputs = {OUTPUT: _output(example, with_graph=True), INFERENCE: _output(example, with_graph=is_dense)}
    # What drops out at random does so by where numbers lie in memory, and a sparse layer puts them where it likes: nothing may.
    for module in example.module.modules():
        module.train(isinstance(module, SparseLinear | nn.RNNBase))
    return outputs | (_gradients(example, masks if is_dense else {}) if learning else {})


def _distances(tensors: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, float]:
    return {what: float((one - others[what]).double().norm()) for what, one in tensors.items()}


@exact_products()
def gate_compiled(work: Callable[[], object], compiled: Example, eager: Example, *, learning: bool) -> None:
    """Raise GateError unless the compiled work of a network does what its copy does as it is, but for what is random in it."""
    result = work()
    if not learning:
        _require_alike({OUTPUT: output_of(result)}, {OUTPUT: _output(eager, with_graph=False)}, than=AS_IT_IS)
        return
    if expected := _gradients_as_it_is(eager):
        held = {_gradient_of(name): one.grad for name, one in compiled.module.named_parameters() if one.grad is not None}
        found = {what: held.get(what, torch.zeros_like(one)) for what, one in expected.items()}
        _require_alike(found, expected, than=AS_IT_IS)


def gate_rounded(rounded: Example, own: Example, *, learning: bool) -> None:
    """Raise GateError unless a network in fewer bits puts out what it does as it is, to half the digits of those bits.

    With `learning` its gradients must agree as well, unless something in it is random; its parameters are lost then.
    """
    found, expected = (_output(one, with_graph=False) for one in (rounded, own))
    _require_alike({OUTPUT: found}, {OUTPUT: expected.to(found.dtype)}, than=AS_IT_IS)
    gradients = _gradients_as_it_is(own) if learning else {}
    if gradients:
        rounded.module.train()
        own_bits = _gradients(rounded, {})
        _require_alike(own_bits, {what: one.to(own_bits[what].dtype) for what, one in gradients.items()}, than=AS_IT_IS)


def _gradients_as_it_is(own: Example) -> dict[str, Tensor]:
    """Return the gradients of a network's training step; none where something in it is random, so that none can be held to."""
    own.module.train()
    first, second = (_gradients(own.copied, {}, seed) for seed in range(2))
    return first if all(torch.equal(one, second[what]) for what, one in first.items()) else {}


def _output(example: Example, *, with_graph: bool) -> Tensor:
    """Return the output in eval mode; with a graph, which also keeps torch's transformers from their fast path."""
    with torch.set_grad_enabled(with_graph):
        return output_of(example.module.eval()(*example.batch)).detach()


def _gradients(example: Example, masks: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return the gradients of a training step, dense, by the parameters they are of, 0 where weights are outside of masks.

    They take the place of the module's parameters, which are lost. Each seed has other numbers dropped out.
    """
    module = example.module
    module.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = output_of(module(*example.batch))
        output.backward(output_gradient(output))
    for one in module.parameters():
        one.data = torch.zeros_like(one) if one.grad is None else one.grad
    return {_gradient_of(name): one.detach() for name, one in masked(densify(module), masks).named_parameters()}


def _gradient_of(name: str) -> str:
    return f"the gradient of {name}"


def _require_alike(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    rounded: Mapping[str, float] = MappingProxyType({}),
    than: str = UNDER_MASKS,
) -> None:
    """Raise GateError unless tensors are near in norm: outputs to half the digits of their dtype, gradients to fewer.

    Where it is known how far those expected were `rounded` from their values in float64, a few times that is as good, if it is
    not much. Gradients are held to their norm and a little of the largest one's; whole numbers must be the same, but for a few.
    """
    largest = max((float(one.double().norm()) for what, one in expected.items() if what not in OUTPUTS), default=0.0)
    for what, one in expected.items():
        own, norm = found[what], float(one.double().norm())
        if own.shape != one.shape:
            raise GateError(f"{what}: expected shape {list(one.shape)}, got {list(own.shape)}; nothing is timed")
        if not one.is_floating_point():
            error, scale, allowed = float((own != one).sum()), float(one.numel()), FEW
        else:
            times, scale = (1, norm) if what in OUTPUTS else (OF_GRADIENTS, norm + NOTHING * largest)
            error, half = float((own - one).double().norm()), math.sqrt(torch.finfo(one.dtype).eps)
            allowed = min(MOST, max(times * half, ROUNDINGS * rounded.get(what, 0.0) / (scale or 1.0)))
        if not error <= allowed * scale:  # written so that NaN fails
            raise GateError(
                f"{what} is off {than} by {error / (scale or 1.0):.2g} of its norm, more than {allowed:.2g}; nothing is timed"
            )
