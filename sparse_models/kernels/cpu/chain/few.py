"""What a chain of layers makes of few samples, from packed copies of their weights (`sliced`), in one call."""

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._compile import kernel
from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._team import passed, run_on, threads_for
from sparse_models.kernels.cpu.few._slice_kernel import Slices, Way, emitter
from sparse_models.kernels.cpu.few.frozen import Ready
from sparse_models.kernels.cpu.few.sliced import Sliced

FIRST, PER_LAYER = 5, 9  # arguments


class FewSamples:
    """The output for so many samples of layers whose own products of as many are ready."""

    def __init__(self, layers: Sequence[Ready]) -> None:
        """Hold them; what they hold of weights must be current whenever they are used."""
        self.layers, first = layers, layers[0].packed.values
        packed = [cast("Sliced", layer.packed) for layer in layers]
        self.shape, self.dtype = layers[0].shape, first.dtype
        batch = self.shape[0]
        self.team = threads_for(sum(one.work(batch) for one in packed))
        *places, scratch_size = accumulate((batch * one.height for one in packed[:-1]), initial=0)
        self.result, self.scratch = layers[-1].room, first.new_empty(scratch_size)  # by way of these memory is had sooner
        held: list[Tensor | int] = [self.team, packed[0].width]
        for layer, one, place in zip(layers, packed, [*places, 0], strict=True):
            rows = one.pointers if one.rows is None else one.rows
            bias = one.values if layer.bias is None else layer.bias
            held += [bias, one.pointers, one.windows, one.codes, one.values, rows, len(one.pointers) - 1, one.height, place]
        kinds = tuple((one.way, one.rows is None, layer.bias is not None) for layer, one in zip(layers, packed, strict=True))
        self.function = _few_samples(name_of(first.dtype), batch, kinds)
        self.arguments = passed(self.function, [0, 0, 0, *held], self.team)

    def of(self, x: Tensor) -> Tensor | None:
        """Return what the layers make of x [batch, in]: [batch, out]; None for what they would misread."""
        if x.shape != self.shape or x.dtype != self.dtype or not x.is_cpu or x.is_neg():
            return None
        x = x.contiguous()
        # Of its own for each call: several threads may multiply at a time.
        result, scratch = torch.empty_like(self.result), torch.empty_like(self.scratch)
        arguments = self.arguments[:]
        arguments[HEADER] = x.data_ptr()
        arguments[HEADER + 1] = result.data_ptr()
        arguments[HEADER + 2] = scratch.data_ptr()
        run_on(self.function, arguments, self.team)
        return result


@kernel
def _few_samples(dtype: str, batch: int, kinds: Sequence[tuple[Way, bool, bool]]) -> int:
    """Return the address of the kernel for so many samples and layers with rows in order or not, and a bias or none."""
    emit = emitter(dtype)
    x, result, scratch, shares, columns = (emit.argument(place) for place in range(FIRST))
    for number, (way, is_direct, has_bias) in enumerate(kinds):
        *own, slices, rows, place = (emit.argument(FIRST + PER_LAYER * number + at) for at in range(PER_LAYER))
        is_last = number == len(kinds) - 1
        after = result if is_last else emit.add(scratch, emit.times(place, emit.width))
        with emit.tasks(shares) as share:
            some = emit.share(slices, share, shares)
            layer = Slices(emit, dtype, way, (x, after, *own), (batch, columns, rows))
            layer.multiply(some, is_direct=is_direct, has_bias=has_bias, relu=not is_last)
        x, columns = after, rows
    return emit.compiled()
