"""Which weights of a layer are grown: those of highest score, of equal ones the first."""

import ctypes
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sparse_models.kernels.cpu._arithmetic import name_of
from sparse_models.kernels.cpu._team import run
from sparse_models.kernels.cpu.chain._factors import Factors
from sparse_models.kernels.cpu.moves._candidates import collect_kernel, guess_kernel, reduce_kernel
from sparse_models.kernels.cpu.moves._table import PART, Work
from sparse_models.kernels.cpu.moves.numbers import BITS, numbers
from sparse_models.kernels.cpu.moves.product import BLOCK, pack, padded

SAMPLE = 2**11  # scores by which it is guessed how high those to be grown are
SLACKS = 1.5, 4.0  # how many more than are grown are to be candidates, by a first and a second guess
LOWER = 0.3  # octaves below the key of what was grown last: as much as where gradients are a fifth smaller
MARGIN = 6  # standard deviations, of random numbers

Source = tuple[int, int] | Factors | Tensor  # of scores: two keys of random numbers, or gradients


def grow(work: Work, source: Source, room: Callable[[], Sequence[Tensor]], packed: Callable[[int], Tensor]) -> None:
    """Find the places of highest score of a layer, of those that do not survive: work.grown of them, in order.

    Of random numbers and of factors a few rows' scores are found at a time, and what is higher than a guess is noted: where the
    guess was wrong, as where scores are a tensor, it is done chunk by chunk, and nothing is passed over before as many as are
    grown are known to be higher. Given are memory for a chunk of each part, and for so many packed numbers, where it is needed.
    """
    share = work.grown / (work.size - work.storage.values.numel() + work.grown)
    if isinstance(source, Factors):
        columns = padded(work.storage.shape[1], work.scored.itemsize)
        given = pack(source, packed(columns * sum(tile.shape[1] for tile in source.inputs)))
        is_done = any(_at_once(work, "product", given, least) for least in _guesses(work, share, given))
    elif isinstance(source, Tensor):
        is_done = False
    else:
        few = share * (1 + (MARGIN * math.sqrt(work.grown) + 1) / work.grown)
        is_done = _at_once(work, "random", (*source, 0, 0), int(2**BITS * max(0.0, 1 - few)))
    if not is_done:
        _chunk_by_chunk(work, source, room())
    work.least = int(work.state[0, 0])


def _guesses(work: Work, share: float, factors: Sequence[int]) -> Iterator[int]:
    """Yield keys above which at least such a share of a layer's scores may lie, the likeliest first; 0 for few scores."""
    if work.size <= 4 * SAMPLE:
        yield 0
        return
    if work.least:  # what was right at the last update need not be computed
        yield max(0, work.least - int(LOWER / torch.finfo(work.scored).eps))
    for slack in SLACKS:
        wanted = int(SAMPLE * share * slack + math.sqrt(SAMPLE * share)) + 1
        if wanted < SAMPLE // 2:
            apart = max(1, work.storage.shape[0] // BLOCK)
            run(guess_kernel(name_of(work.scored)), (work.row, work.part_rows, wanted, apart, SAMPLE, *factors), 1)
            yield int(work.state[0, 0])


def _at_once(work: Work, kind: str, given: Sequence[int], least: int) -> bool:
    """Do what `grow` does in one call, with keys above `least` alone, and tell whether these are as many and find room."""
    work.state[:, :4] = [least, 0, 0, 0]
    function = collect_kernel(name_of(work.scored), work.storage.form.column_bytes, kind)
    run(function, (work.row, work.whole_parts, work.parts, *given), work.parts)
    is_right = not work.state[:, 3].any() and int(work.state[:, 1].sum()) >= work.grown
    if is_right:
        _join(work)
    return is_right


def _chunk_by_chunk(work: Work, source: Source, room: Sequence[Tensor]) -> None:
    """Do what `grow` does with scores of some rows of each part at a time."""
    rows, columns = work.storage.shape
    function = collect_kernel(name_of(work.scored), work.storage.form.column_bytes, "chunk")
    work.state[:, :4] = 0
    for first in range(0, -(-rows // work.parts), work.at_once):
        for part, (start, last) in enumerate(pairwise(work.bounds)):
            begin, end = start + first, min(last, start + first + work.at_once)
            work.by_part[part, :2] = begin, max(0, end - begin)
            if end > begin:
                own = room[part][: (end - begin) * columns].view(end - begin, columns)
                _fill(source, begin, own)
                work.by_part[part, PART.index("scores")] = own.data_ptr()
        run(function, (work.row, work.part_rows, work.parts, 0, 0, 0, 0), work.parts)
        for part in range(work.parts):
            _reduce_part(work, part, 2 * work.grown)
    _join(work)


def _fill(source: Source, first: int, result: Tensor) -> None:
    """Write the scores of as many rows as `result` [rows, in] has, from one on."""
    if isinstance(source, Factors):
        source.of_rows(first, result)
    elif isinstance(source, Tensor):
        result.copy_(source[first : first + len(result)])
    else:
        numbers(source, first * result.shape[1], result.view(torch.int32))


def _join(work: Work) -> None:
    """Put the parts' candidates one after the other, and leave of them as many as are grown."""
    for part in range(1, work.parts):
        held, more = int(work.state[0, 1]), int(work.state[part, 1])
        for name, size in (("keys", work.scored.itemsize), ("places", 4)):
            to, source = (int(work.by_part[number, PART.index(name)]) for number in (0, part))
            ctypes.memmove(to + held * size, source, more * size)
        work.state[0, 1] = held + more
        work.state[0, 2] |= work.state[part, 2]
    _reduce_part(work, 0, work.grown)


def _reduce_part(work: Work, part: int, most: int) -> None:
    """Leave as many candidates as are grown where there are more than so many: only what is higher is one from here on."""
    if int(work.state[part, 1]) > most:
        run(reduce_kernel(name_of(work.scored)), (work.row, work.part_rows[part]), 1)
