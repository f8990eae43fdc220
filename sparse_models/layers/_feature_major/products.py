"""A layer's products, three of a step and one of inference; and the same as calls that are ready, where calls are alike.

What a product is made of is looked up at each call: sizes, a variant, a plan, a kernel. Between kernels that fill the caches
with other things that takes a tenth of a step of 384x1536 with 128 samples, and most of a small one.
"""

from array import array
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.compiler import is_compiling

from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._team import Run, noted, passed, run_on
from sparse_models.kernels.cpu._tile import of_bias
from sparse_models.kernels.source import Held
from sparse_models.kernels.structure import AnyStructure
from sparse_models.linear import is_memory

TRIES = 3  # to note a call: the first of a class of shapes measures variants, which are more than one


class Products:
    """The products of a structure, looked up at each call: of feature-major activations, [features, batch] contiguous."""

    def __init__(self, layer: Any, rows: AnyStructure, columns: AnyStructure, transposition: Tensor) -> None:
        """Take them from a layer's class, for a weight's structure, that of its transpose, and the order of its values."""
        self.layer, self.rows, self.columns, self.transposition = layer, rows, columns, transposition

    def current(self) -> "Products":
        """Return what makes the products of a graph from before, now."""
        return self

    def turned(self, x: Tensor) -> Tensor:
        """Return x [batch, features], in any strides, as [features, batch], contiguous."""
        result: Tensor = self.layer.turned(x)
        return result

    def product(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output [batch, out], feature-major, for x [batch, in]."""
        return self.output(self.turned(x), values, bias)

    def output(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output [batch, out], feature-major, for x [in, batch]."""
        result: Tensor = self.layer.multiply(self.rows, values, x, bias).t()
        return result if is_compiling() else result.data  # no view: of one autograd refuses a ReLU in place

    def input_gradient(self, grad: Tensor, values: Tensor) -> Tensor:
        """Return the input's gradient [batch, in], feature-major, for the output's [out, batch]."""
        result: Tensor = self.layer.multiply_transposed(self.columns, values, self.transposition, grad)
        return result.t()

    def weight_gradient(self, grad: Tensor, x: Tensor) -> Tensor:
        """Return the gradient of the values for that of the output [out, batch] and x [in, batch]."""
        result: Tensor = self.layer.sample(self.rows, grad, x)
        return result

    def weight_and_bias_gradient(self, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the values and of the bias, likewise."""
        result: tuple[Tensor, Tensor] = self.layer.sample_and_sum(self.rows, grad, x)
        return result


class ReadyProducts(Products):
    """The same on a CPU for one batch size: called as they were called before, with other memory.

    Nothing is held that is made from values. A product that takes more than a single kernel, as does one whose parts are added
    up or whose last blocks stand over an edge, is looked up at each call.
    """

    def __init__(self, own: Products, buffers: Sequence[Tensor | None], values: tuple[int, ...], x: Tensor) -> None:
        """Take them from others, for a layer's buffers, values of a shape, and inputs like x [batch, in]."""
        super().__init__(own.layer, own.rows, own.columns, own.transposition)
        self.held, self.batch, self.dtype, self.threads = Held(buffers), x.shape[0], x.dtype, torch.get_num_threads()
        self.strides, self.sizes = (1, self.batch), (own.rows.rows, own.columns.rows)
        self.shapes = values, (own.rows.rows,)
        self._output, self._biased_output, self._input_gradient, self._weight_gradient = (_Again(self.held) for _ in range(4))

    def are_for(self, buffers: Collection[Tensor | None], values: Tensor, bias: Tensor | None, x: Tensor) -> bool:
        """Tell whether they multiply x [batch, in], of as many samples, by what a layer has, all as kernels read it."""
        dtype, (shape, bias_shape) = self.dtype, self.shapes
        return (
            x.dtype == dtype
            and x.is_cpu
            and not x.is_neg()
            and torch.get_num_threads() == self.threads
            and self.held.are(buffers)
            and values.is_cpu
            and is_plain(values, shape, dtype)
            and (bias is None or (bias.is_cpu and is_plain(bias, bias_shape, dtype)))
        )

    def current(self) -> Products:
        """Return these, or what looks all up where the structure is elsewhere in memory since, as in a layer that is shared."""
        own = self.layer, self.rows, self.columns, self.transposition
        return self if self.held.are(self.held.tensors) else Products(*own)

    def turned(self, x: Tensor) -> Tensor:
        """Return x [batch, features], in any strides, as [features, batch], contiguous."""
        return x.t() if x.stride() == self.strides else super().turned(x)

    def product(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output [batch, out], feature-major, for x [batch, in]."""
        call = (self._output if bias is None else self._biased_output).call
        if call is None:
            return super().product(x, values, bias)
        # A single sample is as long either way.
        taken = x if x.stride() == self.strides or (self.batch == 1 and x.is_contiguous()) else super().turned(x)
        result = self._empty(values, self.sizes[0])
        call.run(*((taken, values, result) if bias is None else (taken, values, bias, result)))
        return result

    def output(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Return the output [batch, out], feature-major, for x [in, batch]."""
        given, again = ((x, values), self._output) if bias is None else ((x, values, bias), self._biased_output)
        if again.call is not None:
            result = self._empty(values, self.sizes[0])
            again.call.run(*given, result)
            return result
        if again.tries >= TRIES:  # threads that count at once may pass it
            return super().output(x, values, bias)
        # Of tensors of inference_mode it is not counted how often they were written to.
        with torch.inference_mode(mode=False), torch.no_grad(), noted() as runs:
            found: Tensor = self.layer.multiply(self.rows, values, x, bias)
        again.note(runs, given, (found,))
        return found.t().data

    def input_gradient(self, grad: Tensor, values: Tensor) -> Tensor:
        """Return the input's gradient [batch, in], feature-major, for the output's [out, batch]."""
        again = self._input_gradient
        if again.call is not None:
            result = self._empty(values, self.sizes[1])
            again.call.run(grad, values, result)
            return result
        with noted() as runs:
            result = super().input_gradient(grad, values)
        again.note(runs, (grad, values), (result,))
        return result

    def weight_and_bias_gradient(self, grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the values and of the bias for that of the output [out, batch] and x [in, batch]."""
        call = self._weight_gradient.call
        if call is not None:
            results = [grad.new_empty(shape) for shape in call.shapes]
            call.run(grad, x, *results)
            return results[0], results[1]
        with noted() as runs:
            found = super().weight_and_bias_gradient(grad, x)
        self._weight_gradient.note(runs, (grad, x), found)
        return found

    def _empty(self, values: Tensor, features: int) -> Tensor:
        return values.new_empty_strided((self.batch, features), self.strides)


class _Call(NamedTuple):
    """A kernel's call, to be made again with other tensors of the same sizes."""

    function: int
    numbers: "array[int]"
    team: int
    places: list[tuple[int, int]]  # and which of what is given and of the results stands there
    scratch: list[tuple[int, int]]  # places and bytes
    shapes: list[torch.Size]  # of the results

    def run(self, *tensors: Tensor) -> None:
        """Make the call with what is given and with memory for the results, in the order in which they were noted."""
        numbers = self.numbers[:]  # one call's own, so that threads may share a layer
        for place, which in self.places:
            numbers[place] = tensors[which].data_ptr()
        for place, size in self.scratch:
            scratch = tensors[0].new_empty(size, dtype=torch.uint8)
            numbers[place] = scratch.data_ptr()
        run_on(self.function, numbers, self.team)


class _Again:
    """A product's call once it is noted: all of it at once, as another thread may make it or note its own."""

    def __init__(self, held: Held) -> None:
        self.held, self.tries = held, 0
        self.call: _Call | None = None

    def note(self, runs: Sequence[Run], given: Sequence[Tensor], results: Sequence[Tensor]) -> None:
        """Note a product's call if it is one kernel's, which reads what was given and writes the results themselves."""
        self.tries += 1
        if len(runs) != 1 or self.tries > TRIES or any(map(_is_changed, results)):
            return
        [(function, arguments, team)] = runs
        places = [_places(arguments, tensor) for tensor in (*given, *results)]
        taken = [place for found in places for place in found]
        rest = {place: one for place, one in enumerate(arguments) if isinstance(one, Tensor) and place not in taken}
        scratch = {place: one.nbytes for place, one in rest.items() if one.dtype == torch.uint8}
        known = {id(tensor) for tensor in (*self.held.tensors, of_bias(None)[0])}
        are_known = all(place in scratch or id(one) in known for place, one in rest.items())
        # Of a tensor that stands for two, as a gradient that is the input, it is not known which is which.
        if not all(places) or len({*taken}) < len(taken) or not are_known or len(scratch) > 1:
            return
        self.call = _Call(
            function,
            passed(function, arguments, team),
            team,
            [(HEADER + place, which) for which, found in enumerate(places) for place in found],
            [(HEADER + place, size) for place, size in scratch.items()],
            [result.shape for result in results],
        )


def _places(arguments: Sequence[Tensor | int], tensor: Tensor) -> list[int]:
    """Return which of a call's arguments are a tensor, or all of it in another shape."""
    address, size = tensor.data_ptr(), tensor.nbytes
    return [
        place
        for place, one in enumerate(arguments)
        if isinstance(one, Tensor) and one.data_ptr() == address and one.nbytes == size
    ]


def _is_changed(result: Tensor) -> bool:
    """Tell whether anything but a kernel, which is not seen to, may have written to a tensor that was made just now."""
    return result.is_inference() or result._version > 0  # noqa: SLF001  # PyTorch has no public name for it


def is_plain(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Tell whether a kernel, which sees an address alone, reads a tensor on its device as it is meant."""
    is_as_asked = tensor.shape == shape and tensor.is_contiguous() and tensor.dtype == dtype
    return is_as_asked and not tensor.is_neg() and is_memory(tensor)
