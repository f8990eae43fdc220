"""A mask update: drop, grow, the storage rebuilt and the optimizer state moved, against one dense training step."""

import torch

from bench.cases import Case
from bench.engine.pairing import Racer
from bench.runs.row import Facts
from bench.shapes import Shape
from bench.works.gates import pass_gate
from bench.works.problems import build, problems
from bench.works.reference import dense_reference
from sparse_models.costs import counted_flops, executed_flops, size
from sparse_models.masks.units import units_of
from sparse_models.training import optimizer_for
from sparse_models.updates import UPDATES, update_masks


def bench_update(case: Case, race: Racer) -> Facts:
    """Everything that a mask update adds to a step, the gradient of every weight included where the rule needs it."""
    reference = dense_reference(case)
    pass_gate(case, case.layer, reference.strides)
    parts = problems(case, case.layer)
    model = build(case.layer, parts)
    layers, rule = list(model), UPDATES[case.update]
    optimizer = optimizer_for("adam", model.parameters(), 1e-3)
    model(parts[0].x).backward(parts[-1].output_grad)
    optimizer.step()  # so that there is optimizer state to move
    # On a GPU the device's own: of all that live there, a CUDA graph knows this one alone without being told.
    generator = torch.Generator().manual_seed(0) if case.device == "cpu" else None
    fraction = rule.drop_fraction(0.0)
    sparsities = None
    if rule.resizes:
        sparsities = [rule.sparsity_at(layer.pattern.sparsity_of(layer.mask), 0.0) for layer in layers]
    activations = [(part.output_grad, part.x) for part in parts]

    def update() -> None:
        gradients = {}
        if rule.needs_gradient:
            gradients = {layer: grad.t() @ x for layer, (grad, x) in zip(layers, activations, strict=True)}
        elif rule.gradient == "kept":  # weights for gradients, of which a moved layer has none
            gradients = {layer: layer.unpack(layer.values.detach()) for layer in layers}
        update_masks(
            layers, rule, fraction, optimizer=optimizer, gradients=gradients, generator=generator, sparsities=sparsities
        )

    before = [(layer.mask, layer.to_dense()) for layer in layers]
    update()
    for layer, (mask, weight) in zip(layers, before, strict=True):
        # Blocks are conserved; those at edges hold fewer weights.
        kept = [int(units_of(one, layer.pattern.unit).sum()) for one in (layer.mask, mask)]
        held = kept[0] == kept[1] or not rule.conserves
        assert held, f"{case.layer}: the update changed the number of what it keeps; nothing is timed"
        held = torch.equal(layer.to_dense(), weight * layer.mask)
        assert held, f"{case.layer}: the update changed weights that it kept; nothing is timed"

    race(update, reference.works, case.device)
    total, batch = size(layers), Shape.parse(case.shape).batch
    gradient_flops = counted_flops(total.weights, batch, "forward") if rule.needs_gradient else 0
    return {
        **total._asdict(),
        **reference.facts,
        "drop_fraction": fraction,
        "flops_counted": gradient_flops,
        "flops_executed": gradient_flops,
        "dense_flops_counted": counted_flops(total.weights, batch, "step"),
        "dense_flops_executed": executed_flops(list(reference.layers), batch, "step", input_gradient=len(layers) == 1),
    }
