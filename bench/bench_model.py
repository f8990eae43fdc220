"""The whole of a network of the user's (--model): a forward pass and a training step, sparse against dense at its best."""

import warnings
from collections.abc import Iterable

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from bench.cases import Case
from bench.engine.pairing import Racer
from bench.models.layers import Linear, inspected
from bench.models.loading import Example
from bench.runs.row import Facts
from bench.works.once_per_run import find_once
from bench.works.peak_memory import peak_bytes
from bench.works.reference import dense_case, fastest_variant, whole_model
from bench.works.whole_model_gate import pass_model_gate
from bench.works.whole_models import bytes_of, chosen_masks, example_of, loss_of, model_work, sparsified
from sparse_models.layers import SparseLinear


def bench_model(case: Case, race: Racer) -> Facts:
    """Inference by the whole network: no graph is built."""
    return measure_model(case, race)


def bench_model_step(case: Case, race: Racer) -> Facts:
    """A training step of the whole network: forward, the mean of the squares of its output, backward and Adam."""
    return measure_model(case, race)


def measure_model(case: Case, race: Racer) -> Facts:
    """Gate the case's network against itself, dense under the same masks, time it against dense, and return its facts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the user's code, which were given as it was first run
        return _measured(case, race)


def _measured(case: Case, race: Racer) -> Facts:
    reference, learning = dense_case(case), case.op != "model"
    variant, gain = fastest_variant(reference)
    dense_work, dense = whole_model(variant, reference)
    if case.model == "dense":  # the control is a clone of the reference
        work, example = whole_model(variant, reference, is_clone=True)
    else:
        pass_model_gate(case, learning=learning)
        example = example_of(case)
        sparsified(example.module, chosen_masks(case, example.module), case.layer)
        work = model_work(case.op, example)
    race(work, dense_work, case.device)

    def find_facts() -> Facts:
        peaks: Facts = {}
        if learning and not race.once:  # apart from all timing
            peaks = {"peak_bytes": peak_bytes(work, case.device), "dense_peak_bytes": peak_bytes(dense_work, case.device)}
        layers = inspected(case.data).sparse
        flops = dense_flops(example_of(reference), learning=learning)
        made = [(layer, example.module.get_submodule(layer.name)) for layer in layers]
        saved = [saved_flops(layer, one, learning=learning) for layer, one in made if isinstance(one, SparseLinear)]
        return {
            **size_of(example.module, layers),
            **peaks,
            "dense_bytes_stored": bytes_of(dense.module),
            "dense_layout": variant,
            "dense_layout_gain": gain,
            "flops_counted": flops - sum(counted for counted, _ in saved),
            "flops_executed": flops - sum(executed for _, executed in saved),
            "dense_flops_counted": flops,
            "dense_flops_executed": flops,
        }

    return find_once(f"facts {case}", find_facts)  # the same in every process


def size_of(module: nn.Module, layers: Iterable[Linear]) -> Facts:
    """Return the size of a network as rows tell it: all of its parameters and bytes, and the weights of its linear layers."""
    made = [(layer.inputs * layer.outputs, module.get_submodule(layer.name)) for layer in layers]
    weights = sum(count for count, _ in made)
    nnz = sum(one.nnz if isinstance(one, SparseLinear) else count for count, one in made)
    return {
        "parameters": sum(one.numel() for one in module.parameters()),
        "weights": weights,
        "nnz": nnz,
        "effective_sparsity": 1 - nnz / weights if weights else 0.0,
        "bytes_stored": bytes_of(module),
    }


def dense_flops(example: Example, *, learning: bool) -> int:
    """Return the FLOPs of the products of a forward pass, or of a step, that PyTorch knows the FLOPs of."""
    module = example.module.train(learning)
    with FlopCounterMode(display=False) as counter:  # with a graph, for what is one kernel without one is not counted
        result = module(*example.batch)
        if learning:
            loss_of(result).backward()
    return int(counter.get_total_flops())


def saved_flops(layer: Linear, made: SparseLinear, *, learning: bool) -> tuple[int, int]:
    """Return by how many FLOPs a sparse layer needs, and executes, fewer than a dense one for all its calls."""
    weights, executed = layer.inputs * layer.outputs, made.multiply_adds
    products = [executed.forward]
    if learning:
        products += [executed.weight_gradient] * made.values.requires_grad
        products += [executed.input_gradient] * layer.has_input_gradient
    rows = sum(layer.rows)
    return 2 * rows * len(products) * (weights - made.nnz), 2 * rows * sum(weights - product for product in products)
