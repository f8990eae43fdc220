"""A layer's weights as kernels for few samples read them: kept beside the layer, made anew where they changed."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sparse_models.kernels.candidates import team_for
from sparse_models.kernels.cpu._flow import HEADER
from sparse_models.kernels.cpu._team import passed, run, run_on, threads
from sparse_models.kernels.cpu.few import bitmap, sliced
from sparse_models.kernels.source import Source
from sparse_models.kernels.structure import Structure


class Packed(Protocol):
    """What a packed copy of a matrix [rows, columns] is to a product; each form of it says what its methods mean."""

    @property
    def kernel(self) -> str: ...  # noqa: D102
    @property
    def values(self) -> Tensor: ...  # noqa: D102
    @property
    def height(self) -> int: ...  # noqa: D102
    @property
    def bytes_read(self) -> int: ...  # noqa: D102
    def work(self, batch: int) -> int: ...  # noqa: D102
    def taken(self, x: Tensor) -> Tensor: ...  # noqa: D102
    def room(self, batch: int) -> Tensor: ...  # noqa: D102
    def given(self, result: Tensor) -> Tensor: ...  # noqa: D102
    def function(self, batch: int, *, has_bias: bool) -> int: ...  # noqa: D102
    def arguments(self, x: Tensor, result: Tensor, bias: Tensor | None, team: int) -> list[Tensor | int]: ...  # noqa: D102


class Refillable(Packed, Protocol):
    """A packed copy that takes other values in the place of its own."""

    def refill(self, values: Tensor) -> None: ...  # noqa: D102
    def _replace(self, *, values: Tensor) -> Any: ...


def largest_batch() -> int:
    """Return how many samples a form takes on this processor, at most."""
    return sliced.most_samples(torch.float32)


Pack = Callable[[Structure, Tensor], Refillable]


def form_for(rows: int, columns: int, nnz: int, dtype: torch.dtype, batch: int) -> Pack | None:
    """Return what packs a weight for so many samples; None where the product of any number of them is as fast.

    A bitmap takes time for weights that are not there, too, but reads fewer bytes; slices take time for weights that are there
    and some more, for each sample.
    """
    if not 0 < batch <= bitmap.LARGEST_BATCH or nnz == 0:
        return None
    weights, in_slices = rows * columns, columns >= sliced.fewest_columns(dtype) and batch <= sliced.most_samples(dtype)
    enough = _dense_enough(weights, dtype.itemsize == 2, batch) if in_slices else DENSE_ENOUGH
    if bitmap.is_possible(dtype) and nnz >= weights * enough:
        return bitmap.pack
    # Four samples and more of so many columns are read from the second cache, by tiles fewer times.
    is_left = batch > SEVERAL and weights >= LARGE and dtype == torch.float32 and nnz < SPARSE * weights
    return sliced.pack if in_slices and not is_left else None


def _dense_enough(weights: int, is_short: bool, batch: int) -> float:  # noqa: FBT001
    """Return the density from which on a bitmap is better than slices: measured on 2 cores of a Zen 4 server.

    Of weights that caches do not hold, where bytes count, it is lower in float32. Few are over in about as long either way, and
    slices are what a chain takes in one call, as of a last layer left dense.
    """
    if weights < SMALL:
        return math.inf
    if batch > SEVERAL:
        return 0.4
    return 0.19 if weights >= LARGE and not is_short else 0.6


# Weights, and samples. Of SMALL weights a bitmap gains nothing for one sample and 4 us for eight, of twice as many 8, by one
# thread of a Zen 4 as by two; one call of a chain saves 10 us a layer.
LARGE, SMALL, SEVERAL = 2**23, 2**14, 2
DENSE_ENOUGH, SPARSE = 0.1, 0.07  # density from which on a bitmap beats tiles, and below which tiles beat slices


def product(packed: Packed, x: Tensor, bias: Tensor | None = None, team: int | None = None) -> Tensor:
    """Return x [batch, columns] times the packed matrix transposed, plus bias, by so many threads: [batch, rows]."""
    team = team or _team_for(packed, x, bias)
    taken, result = packed.taken(x), packed.room(len(x))
    run(packed.function(len(x), has_bias=bias is not None), packed.arguments(taken, result, bias, team), team)
    return packed.given(result)


def _team_for(packed: Packed, x: Tensor, bias: Tensor | None) -> int:
    batch, columns = x.shape
    asked = (packed.kernel, (columns, packed.height), batch, packed.values.numel(), x.dtype)
    # Known before, for to look it up takes as long as a product, and hides what a thread more gives.
    taken, function = packed.taken(x), packed.function(batch, has_bias=bias is not None)

    def call(team: int) -> Tensor:
        result = packed.room(batch)
        run(function, packed.arguments(taken, result, bias, team), team)
        return packed.given(result)

    return team_for(asked, packed.work(batch), call)


class Ready:
    """A product with all that is known before it: to look that up again takes 10 us, as long as a product."""

    def __init__(self, packed: Packed, own: tuple[Tensor, Tensor, Tensor | None], x: Tensor, team: int | None = None) -> None:
        """Hold it for a layer's index, values and bias, and for x [batch, in] like this one; a team not given is measured."""
        self.index, values, bias = own
        self.values, self.bias, self.version = values, bias, values._version  # noqa: SLF001
        # As they lie in memory: another view of it may begin where they do, and `share_memory` moves it with all views.
        other = values if bias is None else bias
        self.lying, self.bias_lying, self.places = values.detach(), other.detach(), (values.data_ptr(), other.data_ptr())
        self.shape, self.dtype, self.threads = x.shape, x.dtype, threads()
        self.team = team or _team_for(packed, x, bias)
        self.function = packed.function(len(x), has_bias=bias is not None)
        taken, result = packed.taken(x), packed.room(len(x))
        self.takes_it, self.gives_it = taken.data_ptr() == x.data_ptr(), packed.given(result) is result
        self.room = result  # no result itself, for each call has its own
        # Whether a chain's kernel, which hands on sums as they are, takes it as one of its layers.
        self.is_chained = isinstance(packed, sliced.Sliced) and x.dtype == result.dtype
        self.packed = packed
        # Tickets for all threads: how many of them multiply by columns changes from call to call.
        self.numbers = passed(self.function, packed.arguments(taken, result, bias, self.team), self.threads)

    def product(self, index: Any, values: Any, bias: Any, x: Tensor) -> Tensor | None:
        """Return x [batch, in] times the weights, plus bias: [batch, out]; None where anything is not as it was."""
        if not self.is_current(index, values, bias) or threads() != self.threads:
            return None
        if x.shape != self.shape or x.dtype != self.dtype or not x.is_cpu or x.is_neg():
            return None
        taken = x if self.takes_it and x.is_contiguous() else self.packed.taken(x)
        result = torch.empty_like(self.room)  # in two thirds of the time of what is told a shape
        numbers = self.numbers[:]
        numbers[HEADER], numbers[HEADER + 1] = taken.data_ptr(), result.data_ptr()
        if bias is None:
            numbers[HEADER + 2] = numbers[HEADER + 1]
        run_on(self.function, numbers, self.team)
        return result if self.gives_it else self.packed.given(result)

    def is_current(self, index: Any, values: Any, bias: Any) -> bool:
        """Tell whether a layer's index, values and bias are still those that it was made for, where and as they lay."""
        if values is not self.values or bias is not self.bias or values._version != self.version or index is not self.index:  # noqa: SLF001
            return False
        other = values if bias is None else bias
        if self.places != (values.data_ptr(), other.data_ptr()):
            return False
        return bool(values.is_set_to(self.lying)) and (bias is None or bool(bias.is_set_to(self.bias_lying)))


class Frozen:
    """A packed copy of the weights for each form in which few samples want them, made by the first that do."""

    def __init__(self) -> None:
        """Begin with none."""
        self.held: dict[Pack, tuple[Refillable, Source]] = {}
        self.ready: dict[int, Ready] = {}

    def outdate(self) -> None:
        """Have the copies made anew from the next weights: optimizers of one kernel change weights without counting it."""
        self.ready = {}
        self.held = {pack: (packed, source.outdated()) for pack, (packed, source) in self.held.items()}

    def product(self, structure: Structure, values: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return x [batch, in] times the matrix that holds `values` [nnz] transposed, plus bias [out]: [batch, out]."""
        pack = form_for(structure.rows, structure.columns, len(values), values.dtype, len(x))
        assert pack is not None
        now = Source.of(structure.indices, values.detach())
        packed, source = self.held.pop(pack, (None, None))
        if packed is None or source is None or not source.has_values_of(now):
            self.ready = {}
            with torch.inference_mode(mode=False), torch.no_grad():  # whose tensors could not be refilled out of it
                if packed is not None and source is not None and source.has_structure_of(now):
                    packed.refill(values)
                else:
                    packed = pack(structure, values)
                    self.held = {other: one for other, one in self.held.items() if one[1].has_structure_of(now)}
        self.held[pack] = packed, now  # the last
        if bias is None or packed.room(1).shape[1] == len(bias):  # else the kernel is given a longer copy of the bias
            self.ready[len(x)] = Ready(packed, (structure.indices, values, bias), x)
        return product(packed, x, bias)

    def again(self, index: Tensor | None, parameters: Mapping[str, Tensor | None], x: Tensor) -> Tensor | None:
        """Return what `product` does for a layer's own tensors where nothing has changed since its last call, or None."""
        ready = self.ready.get(x.shape[0])  # a tensor's len() takes several times as long
        return None if ready is None else ready.product(index, parameters.get("values"), parameters.get("bias"), x)

    def copied(self, before: Source, now: Source) -> "Frozen":
        """Return copies for a copy of the layer, of whose weights `now` says what `before` says of this one's."""
        other = Frozen()
        for pack, (packed, source) in self.held.items():
            if source.has_values_of(before):  # nothing else of it is ever written to
                other.held[pack] = packed._replace(values=packed.values.clone()), now
        return other

    @property
    def bytes_read(self) -> int | None:
        """The bytes of weights and structure that a product reads of the copy used last; None where there is none."""
        return next(reversed(self.held.values()))[0].bytes_read if self.held else None
