"""Loss and gradients of a chain of sparse layers with ReLU between them, in one pass."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from sparse_models.kernels.candidates import of_chain
from sparse_models.kernels.choice import variant_for
from sparse_models.kernels.cpu import tiled
from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._pass import default, tile_by_tile
from sparse_models.kernels.cpu.blocks import products as blocks
from sparse_models.kernels.cpu.chain import by_rows, by_tiles
from sparse_models.kernels.cpu.chain._cut import Cut
from sparse_models.kernels.cpu.chain._factors import Leaving
from sparse_models.kernels.cpu.chain._ready import Ready
from sparse_models.kernels.cpu.chain._update import Parameter
from sparse_models.kernels.cpu.chain.rules import Rule
from sparse_models.kernels.cpu.transpose import transposed
from sparse_models.kernels.cuda import product as cuda_product
from sparse_models.kernels.cuda import sampled as cuda_sampled
from sparse_models.kernels.cuda.cross_entropy import cross_entropy
from sparse_models.kernels.link import Gradients, Link
from sparse_models.kernels.structure import AnyStructure, BlockStructure, Structure
from sparse_models.kernels.variant import Variant

SECOND_CACHE = 2**20  # bytes, which most have at least


class Kernels(NamedTuple):
    """What a pass layer by layer is made of."""

    product: Callable[..., Tensor]
    sampled_and_summed: Callable[[Any, Tensor, Tensor], tuple[Tensor, Tensor]]  # gradients of values and bias
    transposed: Callable[[Tensor], Tensor]
    multiply_transposed: Callable[[Link, Tensor, Tensor], Tensor]  # a link, a gradient, and what ReLU gave where it came from
    cross_entropy: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]  # of logits [classes, batch], with its slope


def _on_cpu(link: Link, slope: Tensor, passed: Tensor) -> Tensor:
    return tiled.product(cast("Structure", link.columns), link.values, slope, passed=passed, order=link.transposition)


def _blocks_on_cpu(link: Link, slope: Tensor, passed: Tensor) -> Tensor:
    return blocks.product(cast("BlockStructure", link.columns), link.values, slope, passed=passed)


def _on_cuda(link: Link, slope: Tensor, passed: Tensor) -> Tensor:
    return cuda_product.product(cast("Structure", link.columns), link.values, slope, passed=passed, order=link.transposition)


def _cross_entropy_on_cpu(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    log_shares = torch.log_softmax(logits.t(), 1)
    loss = torch.nn.functional.nll_loss(log_shares, labels)
    shares = log_shares.exp_()
    chosen = labels[:, None]
    shares.scatter_(1, chosen, shares.gather(1, chosen) - 1)
    return loss, transposed(shares) / len(labels)


CPU = Kernels(tiled.product, tiled.sampled_and_summed, transposed, _on_cpu, _cross_entropy_on_cpu)
CUDA = Kernels(cuda_product.product, cuda_sampled.sampled_and_summed, lambda x: x.t().contiguous(), _on_cuda, cross_entropy)
BLOCKS_ON_CPU = Kernels(blocks.product, blocks.sampled_and_summed, transposed, _blocks_on_cpu, _cross_entropy_on_cpu)
KERNELS = {(Structure, "cpu"): CPU, (Structure, "cuda"): CUDA, (BlockStructure, "cpu"): BLOCKS_ON_CPU}


def kernels_for(structure: AnyStructure, x: Tensor) -> Kernels:
    """Return the kernels for a kind of matrix on the device that x is on."""
    return KERNELS[type(structure), x.device.type]


def define_gradients(links: Sequence[Link], x: Tensor, labels: Tensor) -> Gradients:
    """Return what `gradients` means, for x [batch, in] and labels [batch], by dense products and PyTorch's autograd."""
    weights, biases, hidden = [], [], x
    for number, link in enumerate(links):
        weight = link.rows.dense(link.values)
        bias = x.new_zeros(link.rows.rows) if link.bias is None else link.bias.detach().clone()
        weights.append(weight.requires_grad_())
        biases.append(bias.requires_grad_())
        hidden = torch.nn.functional.linear(torch.relu(hidden) if number else hidden, weight, bias)
    loss = torch.nn.functional.cross_entropy(hidden, labels)
    found = torch.autograd.grad(loss, [*weights, *biases])
    sampled = [link.rows.at(gradient) for link, gradient in zip(links, found, strict=False)]
    return Gradients(loss.detach(), sampled, list(found[len(links) :]))


def gradients(links: Sequence[Link], x: Tensor, labels: Tensor, variant: Variant | None = None) -> Gradients:
    """Return loss and gradients for x [batch, in] and labels [batch], each below the last layer's rows; on a GPU -100, too.

    A tile of the batch goes through all layers where that is faster on a CPU, as where the second cache holds it in all of
    them; else layer after layer.
    """
    if x.is_cuda:
        return layer_by_layer(links, x, labels)
    if variant is None:
        variant = _chosen(links, x, labels)
    if variant.vectors == 0:
        return layer_by_layer(links, x, labels)
    return tile_by_tile(links, x.contiguous(), labels.contiguous(), variant)


def _chosen(links: Sequence[Link], x: Tensor, labels: Tensor) -> Variant:
    sizes = (links[0].rows.columns, *(link.rows.rows for link in links))
    batch, nnz = len(labels), sum(link.values.numel() for link in links)

    def call(variant: Variant) -> list[Tensor]:
        found = gradients(links, x, labels, variant)
        return [found.loss, *found.values, *found.biases]

    kernel = (
        "chain" if isinstance(links[0].rows, Structure) else f"chain of {links[0].rows.height}x{links[0].rows.width} blocks"
    )
    return variant_for((kernel, sizes, batch, nnz, x.dtype), lambda: of_chain(default(links), batch, name_of(x.dtype)), call)


def layer_by_layer(links: Sequence[Link], x: Tensor, labels: Tensor) -> Gradients:
    """Return what `gradients` does, each layer's products in their turn, with ReLU and its gradient fused into them."""
    kernels = kernels_for(links[0].rows, x)
    held, last = [kernels.transposed(x)], len(links) - 1
    for number, link in enumerate(links):
        held.append(kernels.product(link.rows, link.values, held[-1], link.bias, relu=number < last))
    loss, slope = kernels.cross_entropy(held.pop(), labels)
    values, biases = [], []
    for number, link in reversed(list(enumerate(links))):
        value, bias = kernels.sampled_and_summed(link.rows, slope, held[number])
        values.append(value)
        biases.append(bias)
        if number:
            slope = kernels.multiply_transposed(link, slope, held[number])
    return Gradients(loss, values[::-1], biases[::-1])


def _bytes_of(links: Sequence[Link]) -> int:
    """Return the bytes of all values and of where they are."""
    return sum(tensor.nbytes for link in links for tensor in (link.values, link.rows.indices))


def ready_step(links: Sequence[Link], parameters: Sequence[Parameter | None], rule: Rule, batch: int) -> Ready:
    """Return a training step on so many samples, for a chain of which each layer's values and bias are parameters in turn.

    Threads share out the tiles of the batch where these keep all of them busy alike, and the rows of a layer elsewhere; these
    also where a tile is all that each has, first caches are small, and all values would fill two second caches.
    """
    variant = by_tiles.default_of(links)
    tiles = Cut.of(batch, links[0].values.dtype, variant).tiles
    is_even = tiles % variant.threads == 0 or tiles > 4 * variant.threads
    is_large = by_tiles.has_small_cache(variant) and tiles <= variant.threads > 1 and _bytes_of(links) > 2 * SECOND_CACHE
    if (is_even and not is_large) or not isinstance(links[0].rows, Structure):
        return by_tiles.ready(links, parameters, rule, batch, variant)
    return by_rows.ready(links, parameters, rule, batch)


def leaving_step(links: Sequence[Link], parameters: Sequence[Parameter | None], rule: Rule, batch: int) -> Leaving | None:
    """Return a step that leaves from what the gradient of every weight is made; None where there is none."""
    return by_rows.leaving(links, parameters, rule, batch) if isinstance(links[0].rows, Structure) else None
