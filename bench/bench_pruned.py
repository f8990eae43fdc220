"""Pruning what is trained: inference of a network, trained dense, pruned and fine-tuned, against the dense one at its best."""

import base64
import contextlib
import statistics

import numpy as np
import torch
from torch import Tensor, nn

from bench import grids
from bench.cases import Case
from bench.engine.pairing import Racer
from bench.engine.rounds import time_round
from bench.grids import stored
from bench.models.loading import Example
from bench.models.pruned import Masks, example_of, prune, sparse_of
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.once_per_run import by_one_thread, find_once, kept, once_per_run
from bench.works.reference import dense_case, fastest_variant, whole_model
from bench.works.whole_model_gate import gate_model
from bench.works.whole_models import bytes_of, model_work
from sparse_models.errors import GateError, InputError
from sparse_models.layers import LAYERS, SparseLinear

WAYS = {"layer by layer": False, "all layers at once": True}
CALLS, ROUNDS = 20, 5  # by which the faster way is found: where there are two they are far apart


def bench_pruned(case: Case, race: Racer) -> Facts:
    """Inference by the pruned network, whichever way is faster: no graph is built."""
    seeds, epochs = (1, 1) if race.once else (grids.SEEDS, grids.PRUNED_EPOCHS)
    found = [pruned(case.data, case.layer, case.sparsity, case.threads, seed, seeds, epochs) for seed in range(seeds)]
    of_dense, of_pruned, of_tuned = (list(column) for column in zip(*(accuracies for accuracies, _, _ in found), strict=True))
    _, packed, failure = found[0]
    if failure:
        raise GateError(failure)
    drawn = example_of(case.data, Shape.parse(case.shape).batch).placed(case.device, getattr(torch, stored(case.dtype)))
    masks = unpacked(packed, drawn.module)
    ways = ways_of(drawn, case.layer, masks)
    reference = dense_case(case)
    variant, gain = fastest_variant(reference)
    dense_work, dense = whole_model(variant, reference)
    works = {way: model_work(case.op, example) for way, example in ways.items()}
    seconds = {way: lambda work=work: time_round(work, CALLS, case.device).seconds for way, work in works.items()}
    way = find_once(f"way {case}", lambda: min(works, key=lambda way: min(seconds[way]() for _ in range(ROUNDS))))
    race(works[way], dense_work, case.device)

    def find_facts() -> Facts:
        return {
            "dense_accuracies": of_dense,
            "pruned_accuracies": of_pruned,
            "tuned_accuracies": of_tuned,
            **sizes_of(ways[way].module, masks),
            "dense_bytes_stored": bytes_of(dense.module),
            "dense_layout": variant,
            "dense_layout_gain": gain,
            **flops_of(next(iter(ways.values()))),
            "way": way,
            "tuning_epochs": epochs,
            "test_accuracy": statistics.mean(of_tuned),
            "dense_test_accuracy": statistics.mean(of_dense),
        }

    return find_once(f"facts {case}", find_facts)  # the same in every process


def to_prepare(case: Case) -> list[Case]:
    """Return what a case needs to be prepared: its network of each seed, pruned, which is the same for all batches."""
    one = case._replace(shape=str(Shape.parse(case.shape)._replace(batch=1)))
    return [one._replace(seed=seed) for seed in range(grids.SEEDS)]


def prepare(case: Case) -> None:
    """Train, prune and fine-tune a seed's network, and gate the first one's."""
    pruned(case.data, case.layer, case.sparsity, case.threads, case.seed, grids.SEEDS, grids.PRUNED_EPOCHS)


def ways_of(example: Example, layer: str, masks: Masks) -> dict[str, Example]:
    """Return copies of an example whose network is sparse, by the ways in which it can infer."""
    found: dict[str, Example] = {}
    for way, at_once in WAYS.items():
        with contextlib.suppress(*[InputError] * at_once):  # not every network is one chain
            found[way] = example._replace(module=sparse_of(example.copied.module, LAYERS[layer], masks, at_once=at_once))
    return found


@once_per_run
def pruned(
    name: str, layer: str, sparsity: float, threads: int, seed: int, seeds: int, epochs: int
) -> tuple[list[float], dict[str, str], str]:
    """Return the accuracies of a seed's network, dense, pruned and fine-tuned; of the first seed's also what it is timed with.

    That is its packed masks, and why it fails its gate, "" where it does not: it must put out, as it is timed and with the
    layer's kernels, what it does dense with zeros in their place, in every way, and by as many threads as it is timed by. What
    is trained, by one thread, is kept for later runs.
    """

    def train() -> tuple[list[float], dict[str, str]]:
        with by_one_thread():
            found = prune(name, LAYERS[layer].pattern, sparsity, seed, seeds, epochs)
        return [found.dense, found.pruned, found.tuned], {} if seed else {at: pack(mask) for at, mask in found.masks.items()}

    data, _ = grids.NETWORKS[name]
    accuracies, masks = kept(f"pruned {name} {layer} {sparsity} {seed} of {seeds}, {epochs} epochs", data, train)
    return accuracies, masks, "" if seed else why_not(name, layer, masks, threads)


def why_not(name: str, layer: str, masks: dict[str, str], threads: int) -> str:
    """Return why the network that is timed fails its gate, "" where it does not."""
    torch.set_num_threads(threads)
    try:
        for batch in grids.PRUNED_BATCHES:
            example = example_of(name, batch)
            at = unpacked(masks, example.module)
            for own in ways_of(example, layer, at).values():
                gate_model(example.copied, lambda _: at, lambda _, __, own=own: own.module, learning=False)  # type: ignore[misc]  # noqa: B023
    except GateError as error:
        return f"{layer}: {error}"
    return ""


def pack(mask: Tensor) -> str:
    """Return a mask as text, eight weights a byte."""
    return base64.b64encode(np.packbits(mask.numpy()).tobytes()).decode()


def unpacked(packed: dict[str, str], module: nn.Module) -> Masks:
    """Return by name the masks [of the weight's shape] of a module's layers."""
    masks = {}
    for name, text in packed.items():
        weight = module.get_parameter(f"{name}.weight")
        bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=weight.numel())
        masks[name] = torch.from_numpy(bits).bool().view(weight.shape).to(weight.device)
    return masks


def sizes_of(module: nn.Module, masks: Masks) -> Facts:
    """Return the size of a pruned network as rows tell it; its weights are those of all layers, the last included."""
    layers = [one for one in module.modules() if isinstance(one, SparseLinear | nn.Linear)]
    weights = sum(one.out_features * one.in_features for one in layers)
    nnz = weights - sum(int((~mask).sum()) for mask in masks.values())
    return {
        "parameters": sum(one.numel() for one in module.parameters()),
        "weights": weights,
        "nnz": nnz,
        "effective_sparsity": 1 - nnz / weights,
        "bytes_stored": bytes_of(module),
    }


def flops_of(example: Example) -> Facts:
    """Return the FLOPs of the products of a forward pass layer by layer, counted and executed, and of the dense network."""
    products: list[tuple[int, int, int]] = []

    def add(layer: nn.Module, inputs: tuple[Tensor, ...], _: object) -> None:
        assert isinstance(layer, SparseLinear | nn.Linear)
        weights, flops = layer.out_features * layer.in_features, 2 * inputs[0].numel() // layer.in_features
        own = (layer.nnz, layer.multiply_adds.forward) if isinstance(layer, SparseLinear) else (weights, weights)
        products.append((flops * own[0], flops * own[1], flops * weights))

    hooks = [one.register_forward_hook(add) for one in example.module.modules() if isinstance(one, SparseLinear | nn.Linear)]
    with torch.no_grad():
        example.module(*example.batch)
    for hook in hooks:
        hook.remove()
    counted, executed, dense = (sum(column) for column in zip(*products, strict=True))
    told = {"flops_counted": counted, "flops_executed": executed}
    return {**told, "dense_flops_counted": dense, "dense_flops_executed": dense}
