"""A network of the user's may be timed sparse once it agrees with itself dense under the same masks; and compiled, with eager.

Compared are the outputs of a forward pass and the gradients of every parameter, in norm. Where rounding decides on which side
of a corner of ReLU a number lies, gradients differ by the share of a sample. A few in a million are so near, so gradients are
held to fewer digits than outputs, and a network of few numbers that fails has other tries, with weights a little changed.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from bench.cases import Case
from bench.models.layers import output_of
from bench.models.loading import Example
from bench.works.once_per_run import once_per_run
from bench.works.whole_models import chosen_masks, example_of, loss_of, masked, sparsified
from sparse_models.errors import GateError
from sparse_models.sparsification import densify
from sparse_models.testing.exact import exact_products

TRIES, JITTER = 3, 1e-3  # with weights of their own, which differ by so much
OF_GRADIENTS, MOST = 30, 0.3  # times what outputs may differ by, and the most
FEW = 0.01  # of whole numbers: which of two classes is the likelier, rounding may decide
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
    expected = _output(dense, with_graph=True)
    for with_graph in (False, True):  # a sparse layer may go other ways
        _require_close("its output", _output(own, with_graph=with_graph), expected)
    if learning:
        _require_same_gradients(_gradients(own, {}), _gradients(dense, masks))


@exact_products()
def gate_compiled(work: Callable[[], object], compiled: Example, eager: Example, *, learning: bool) -> None:
    """Raise GateError unless the compiled work of a network does what its copy does as it is, but for what is random in it."""
    result = work()
    if not learning:
        expected = _output(eager, with_graph=False)
        _require_close("its output, compiled,", output_of(result), expected)
        return
    found = {name: one.grad for name, one in compiled.module.named_parameters() if one.grad is not None}
    expected_gradients, others = (_gradients(eager.copied, {}, seed) for seed in range(2))
    if all(torch.equal(one, others[name]) for name, one in expected_gradients.items()):
        of_found = {name: found.get(name, torch.zeros_like(one)) for name, one in expected_gradients.items()}
        _require_same_gradients(of_found, expected_gradients)


def _require_same_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise GateError unless gradients by the parameters' names agree."""
    largest = max((gradient.norm() for gradient in expected.values()), default=0.0)
    for name, gradient in expected.items():
        _require_close(f"the gradient of {name}", found[name], gradient, OF_GRADIENTS, NOTHING * float(largest))


def _output(example: Example, *, with_graph: bool) -> Tensor:
    """Return the output in eval mode; with a graph, which also keeps torch's transformers from their fast path."""
    with torch.set_grad_enabled(with_graph):
        return output_of(example.module.eval()(*example.batch)).detach()


def _gradients(example: Example, masks: Mapping[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """Return the gradients of a training's loss by the dense parameters' names, 0 where weights are outside of masks.

    They take the place of the module's parameters, which are lost. Each seed has other numbers dropped out.
    """
    module = example.module.train()
    module.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        loss_of(module(*example.batch)).backward()
    for one in module.parameters():
        one.data = torch.zeros_like(one) if one.grad is None else one.grad
    return {name: one.detach() for name, one in masked(densify(module), masks).named_parameters()}


def _require_close(what: str, found: Tensor, expected: Tensor, times: int = 1, more: float = 0.0) -> None:
    """Raise GateError unless two tensors are near in norm, to half the digits of their dtype or `times` that.

    It is held to the norm of the one expected and `more`; numbers that are whole must be the same, but for a few.
    """
    if found.shape != expected.shape:
        raise GateError(f"{what}: expected shape {list(expected.shape)}, got {list(found.shape)}; nothing is timed")
    if expected.is_floating_point():
        error, scale = float((found - expected).double().norm()), float(expected.double().norm()) + more
        allowed = min(MOST, times * math.sqrt(torch.finfo(expected.dtype).eps))
    else:
        error, scale, allowed = float((found != expected).sum()), float(expected.numel()), FEW
    if not error <= allowed * scale:  # written so that NaN fails
        share = error / (scale or 1.0)
        raise GateError(
            f"{what} is off that of the dense model under the same masks by {share:.2g} of its norm, more than {allowed:.2g}; "
            "nothing is timed"
        )
