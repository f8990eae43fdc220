"""Which weights of layers are grown: those of highest score, of equal ones the first."""

import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._team import run, threads
from sparse_models.kernels.cpu.chain._factors import Factors
from sparse_models.kernels.cpu.moves._candidates import chunk_kernel, find_kernel, guess_kernel
from sparse_models.kernels.cpu.moves._select import reduce_kernel, select_kernel
from sparse_models.kernels.cpu.moves._table import FOUND, HELD, LEAST, LIMIT, PART, Work
from sparse_models.kernels.cpu.moves.numbers import BITS, numbers
from sparse_models.kernels.cpu.moves.pack import pack, room_for
from sparse_models.kernels.cpu.moves.product import BLOCK

SAMPLE = 2**11  # scores by which it is guessed how high those to be grown are
SLACKS = 1.5, 4.0  # how many more than are grown are to be candidates, by a first and a second guess
LOWER = 0.3  # octaves below the key of what was grown last: as much as where gradients are a fifth smaller
MARGIN = 6  # standard deviations, of random numbers
MANY = 64  # blocks of rows of which one more to guess by is little

Source = tuple[int, int] | Factors | Tensor  # of scores: two keys of random numbers, or gradients


def grow(
    moved: Sequence[tuple[Work, Source]],
    tables: tuple[Tensor, Tensor],
    room: Callable[[], Sequence[Tensor]],
    packed: Callable[[int], Tensor],
) -> None:
    """Find the places of highest score of layers, of those that do not survive: as many as are grown, in order.

    Of random numbers and of factors a few rows' scores are found at a time, and what is higher than a guess is noted, of all
    layers in one call. Where a guess was wrong, as where scores are a tensor, it is done chunk by chunk, and nothing is passed
    over before as many as are grown are known to be higher. Given are tables of the layers and of their parts, memory for a
    chunk of each part, and for so many packed numbers, where it is needed.
    """
    factors = [(work, source) for work, source in moved if isinstance(source, Factors)]
    keys = [(work, source) for work, source in moved if type(source) is tuple]
    if len(factors) == len(moved):
        _by_factors(factors, tables, packed)
    elif len(keys) == len(moved):
        for work, own in keys:
            work.source(*own)
            few = _share(work) * (1 + (MARGIN * math.sqrt(work.grown) + 1) / work.grown)
            work.fill({"least": int(2**BITS * max(0.0, 1 - few))})
        _find([work for work, _ in keys], tables, "random")
    else:
        for work, _ in moved:
            work.state[FOUND] = 0
    for work, source in moved:
        if work.state[FOUND] < work.grown:
            _chunk_by_chunk(work, source, room())


def _by_factors(moved: Sequence[tuple[Work, Factors]], tables: tuple[Tensor, Tensor], packed: Callable[[int], Tensor]) -> None:
    """Do what `grow` does as far as keys are guessed right."""
    starts = list(accumulate((room_for(factors) for _, factors in moved), initial=0))
    address = packed(starts[-1]).data_ptr()
    for (work, factors), start in zip(moved, starts[:-1], strict=True):
        samples = factors.slopes[0].shape[1]
        work.source(factors.table.data_ptr(), len(factors.slopes), samples, address + start * work.scored.itemsize)
    pack(torch.stack([work.row for work, _ in moved]), moved[0][0].scored)  # as they are now: a table of some layers is a copy
    for work, _ in moved:
        is_known = work.state[LEAST] and work.storage.shape[0] < MANY * BLOCK
        lower = max(0, int(work.state[LEAST]) - int(LOWER / torch.finfo(work.scored).eps))
        work.fill({"least": lower if is_known else _guess(work, SLACKS[0])})
    _find([work for work, _ in moved], tables, "product")
    for work, _ in moved:
        for slack in SLACKS:
            if work.state[FOUND] >= work.grown or not (least := _guess(work, slack)):
                break
            work.fill({"least": least})
            _find([work], (work.row[None], work.part_rows), "product")


def _share(work: Work) -> float:
    """Return which share of the places of a layer that may be grown are."""
    return work.grown / (work.size - work.storage.values.numel() + work.grown)


def _guess(work: Work, slack: float) -> int:
    """Return a key above which a share of a layer's scores may lie that is so many times what is grown; 0 for few scores."""
    wanted = int(SAMPLE * _share(work) * slack + math.sqrt(SAMPLE * _share(work))) + 1
    if work.size <= 4 * SAMPLE or wanted >= SAMPLE // 2:
        return 0
    apart = max(1, work.storage.shape[0] // BLOCK)
    run(guess_kernel(name_of(work.scored)), (work.row, wanted, apart, SAMPLE), 1)
    return int(work.part_states[0, LIMIT])


def _find(works: Sequence[Work], tables: tuple[Tensor, Tensor], kind: str) -> None:
    """Find what is grown of layers in one call, with keys above what was guessed alone; nothing where these have no room."""
    rows, parts = tables
    dtype, arguments = name_of(works[0].scored), (rows, len(rows), parts, len(parts))
    run(find_kernel(dtype, kind), arguments, min(threads(), len(parts)))
    for fallback in (chunk_kernel, reduce_kernel, select_kernel):  # so that a guess that is wrong later on compiles nothing
        fallback(dtype)


def _chunk_by_chunk(work: Work, source: Source, room: Sequence[Tensor]) -> None:
    """Do what `grow` does with scores of some rows of each part of a layer at a time."""
    rows, columns = work.storage.shape
    function, dtype = chunk_kernel(name_of(work.scored)), name_of(work.scored)
    work.part_states.zero_()
    parts = work.part_rows.clone()
    by_part = parts.numpy()
    for first in range(0, -(-rows // work.parts) + BLOCK, work.at_once):
        for part, (start, last) in enumerate(pairwise(work.bounds)):
            begin, end = start + first, min(last, start + first + work.at_once)
            by_part[part, PART.index("first")], by_part[part, PART.index("count")] = begin, max(0, end - begin)
            if end > begin:
                own = room[part][: (end - begin) * columns].view(end - begin, columns)
                _fill(source, begin, own)
                by_part[part, PART.index("scores")] = own.data_ptr()
        run(function, (parts, work.parts), work.parts)
        for part in range(work.parts):
            if int(work.part_states[part, HELD]) > 2 * work.grown:
                run(reduce_kernel(dtype), (parts[part],), 1)
    run(select_kernel(dtype), (work.row,), 1)


def _fill(source: Source, first: int, result: Tensor) -> None:
    """Write the scores of as many rows as `result` [rows, in] has, from one on."""
    if isinstance(source, Factors):
        source.of_rows(first, result)
    elif isinstance(source, Tensor):
        result.copy_(source[first : first + len(result)])
    else:
        numbers(source, first * result.shape[1], result.view(torch.int32))
