"""The kernels themselves, in Triton: pointers in, tiles of a product out; importing this imports Triton.

`SIZE` is the side of a block, `ROWS` the samples of a tile, and `DEPTH` how much of the summed dimension one `tl.dot` takes: a
part of a block where blocks are larger, several blocks gathered where they are smaller. Where a block has less than `SIZE` rows
or columns of the matrix, at its edges, what is outside is read as 0 and not written.
"""

import triton
import triton.language as tl

# What Triton's library writes in Triton itself (tl.sum, tl.zeros, tl.cdiv) is compiled or interpreted as its import is. None of
# it is used here, so that a process which compiles these kernels can interpret them, too.


@triton.jit
def where(indices, order, step, begin, end, SIZE: tl.constexpr, DEPTH: tl.constexpr, ORDERED: tl.constexpr):
    """Return, for a step of a block row, each summed feature [DEPTH], its block, its place in the block, and if it is there."""
    lane = tl.arange(0, DEPTH)
    if DEPTH <= SIZE:  # one block, so all is one number: a tile's address is then known without an indirect load
        at = begin + step // (SIZE // DEPTH)
        start = (step % (SIZE // DEPTH)) * DEPTH
        inside = start + lane
    else:
        at = begin + step * (DEPTH // SIZE) + lane // SIZE
        start = 0
        inside = lane % SIZE
    kept = at < end
    column = tl.load(indices + at, mask=kept, other=0).to(tl.int32)
    block = at
    if ORDERED:
        block = tl.load(order + at, mask=kept, other=0).to(tl.int32)
    elif DEPTH > SIZE:
        block = tl.where(kept, at, begin)
    return column, block, inside, kept


@triton.jit
def product(
    x, values, pointers, indices, order, bias, result, batch, inputs, outputs, rows,
    SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, TURNED: tl.constexpr, ORDERED: tl.constexpr,
    WHOLE: tl.constexpr, BIASED: tl.constexpr, BY_TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write one tile [ROWS, SIZE] of x [batch, inputs] times a matrix of blocks, transposed, plus bias [outputs].

    The blocks of a row of blocks follow one another from pointers[row] on; block `order[at]`, or `at` itself, holds the
    weights, [outputs, inputs] or, where `TURNED`, [inputs, outputs]. What is needed of the next step is loaded a step early:
    then the loads of tiles depend on no other load of their step, and Triton has several of them under way.
    """
    program = tl.program_id(0)
    row = program % rows  # programs that run at a time read the same samples, and weights that the second cache holds
    sample = (program // rows) * ROWS
    begin = tl.load(pointers + row).to(tl.int32)
    end = tl.load(pointers + row + 1).to(tl.int32)
    # Of a tile that reaches beyond the batch, the last sample is read again, and not written.
    samples = tl.minimum(tl.arange(0, ROWS), batch - 1 - sample)
    own = sample.to(tl.int64)
    lane = tl.arange(0, SIZE)
    total = tl.full((ROWS, SIZE), 0.0, tl.float32)
    column, block, inside, kept = where(indices, order, 0, begin, end, SIZE, DEPTH, ORDERED)
    steps = (end - begin) * (SIZE // DEPTH) if DEPTH <= SIZE else (end - begin + DEPTH // SIZE - 1) // (DEPTH // SIZE)
    for step in range(steps):
        if BY_TMA:
            left = x.load([sample, column * SIZE])
            held = values.load([block * SIZE, 0])
            right = held if TURNED else held.T
        else:
            feature = column * SIZE + inside
            if DEPTH > SIZE:  # what a block's columns are to the compiler: so many numbers in a row
                feature = tl.max_contiguous(tl.multiple_of(feature, SIZE), SIZE)
            address = x + own * inputs + samples[:, None] * inputs + feature[None, :]
            place = inside[:, None] * SIZE + lane[None, :] if TURNED else inside[:, None] + lane[None, :] * SIZE
            if DEPTH > SIZE:
                held = values + block[:, None].to(tl.int64) * (SIZE * SIZE) + place
                right = tl.load(held, mask=kept[:, None], other=0.0)
                there = kept if WHOLE else kept & (feature < inputs)
                left = tl.load(address, mask=there[None, :], other=0.0)
            else:
                right = tl.load(values + block.to(tl.int64) * (SIZE * SIZE) + place)  # blocks may hold 2^31 numbers
                left = tl.load(address) if WHOLE else tl.load(address, mask=(feature < inputs)[None, :], other=0.0)
        column, block, inside, kept = where(indices, order, step + 1, begin, end, SIZE, DEPTH, ORDERED)
        total = tl.dot(left, right, total, input_precision=PRECISION)
    output = row * SIZE + lane
    if BIASED:
        total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    written = (sample + tl.arange(0, ROWS) < batch)[:, None] & (output < outputs)[None, :]
    tl.store(
        result + own * outputs + samples[:, None] * outputs + output[None, :], total.to(result.dtype.element_ty), mask=written
    )


@triton.jit
def plus(one, other):
    """Return a sum, for a reduction."""
    return one + other


@triton.jit
def sampled(
    grad, x, pointers, indices, result, batch, inputs, outputs, rows, samples_each, blocks,
    SIZE: tl.constexpr, COUNT: tl.constexpr, DEPTH: tl.constexpr, POINTERS: tl.constexpr, FEATURE_MAJOR: tl.constexpr,
    WHOLE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write grad^T x at up to COUNT kept blocks of one row of blocks, summed over one part of the batch.

    They are one product, [COUNT * SIZE, samples] times [samples, SIZE], so that gradients are read once for all of them and
    small blocks fill a tensor core. Row r has the programs from pointers[r] // COUNT + r on: enough for its blocks, and told
    by `pointers` alone.
    """
    program = tl.program_id(0)
    number = tl.arange(0, POINTERS)
    firsts = tl.load(pointers + number, mask=number < rows, other=2**30).to(tl.int32) // COUNT + number
    row = tl.reduce((firsts <= program).to(tl.int32), 0, plus) - 1
    begin = tl.load(pointers + row).to(tl.int32)
    end = tl.load(pointers + row + 1).to(tl.int32)
    first = begin + (program - begin // COUNT - row) * COUNT
    lane = tl.arange(0, COUNT * SIZE)
    at = first + lane // SIZE
    kept = at < end
    column = tl.load(indices + at, mask=kept, other=0).to(tl.int32)
    feature = column * SIZE + lane % SIZE
    feature = tl.max_contiguous(tl.multiple_of(feature, SIZE), SIZE)
    output = row * SIZE + tl.arange(0, SIZE)
    sample = tl.arange(0, DEPTH)
    start = tl.program_id(1) * samples_each
    stop = tl.where(first < end, tl.minimum(start + samples_each, batch), start)
    if FEATURE_MAJOR:
        left = x + start + feature[:, None].to(tl.int64) * batch + sample[None, :]
        right = grad + start + output[None, :].to(tl.int64) * batch + sample[:, None]
        step, step_of_grad = DEPTH, DEPTH
    else:
        left = x + start.to(tl.int64) * inputs + feature[:, None] + sample[None, :] * inputs
        right = grad + start.to(tl.int64) * outputs + output[None, :] + sample[:, None] * outputs
        step, step_of_grad = DEPTH * inputs, DEPTH * outputs
    total = tl.full((COUNT * SIZE, SIZE), 0.0, tl.float32)
    for first_sample in range(start, stop, DEPTH):
        if WHOLE:
            factor, other = tl.load(left), tl.load(right)
        else:
            there = first_sample + sample < stop
            factor = tl.load(left, mask=there[None, :] & (feature < inputs)[:, None], other=0.0)
            other = tl.load(right, mask=there[:, None] & (output < outputs)[None, :], other=0.0)
        total = tl.dot(factor, other, total, input_precision=PRECISION)
        left += step
        right += step_of_grad
    place = tl.program_id(1) * blocks + at
    place = place[:, None].to(tl.int64) * (SIZE * SIZE) + (lane % SIZE)[:, None] + tl.arange(0, SIZE)[None, :] * SIZE
    tl.store(result + place, total.to(result.dtype.element_ty), mask=kept[:, None])


@triton.jit
def transposed(x, result, rows, columns, SIDE: tl.constexpr):
    """Write a tile of x [rows, columns] into its transpose."""
    row = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    column = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    there = (row < rows)[:, None] & (column < columns)[None, :]
    tile = tl.load(x + row[:, None].to(tl.int64) * columns + column[None, :], mask=there)
    back = (column < columns)[:, None] & (row < rows)[None, :]
    tl.store(result + column[:, None].to(tl.int64) * rows + row[None, :], tile.T, mask=back)


@triton.jit
def ones(word):
    """Return how many bits of each word, an unsigned integer of 32, are set: compilers know it by this form."""
    pairs = word - ((word >> 1) & 0x55555555)
    fours = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    return ((((fours + (fours >> 4)) & 0x0F0F0F0F) * 0x01010101) >> 24).to(tl.int32)


@triton.jit
def inputs_at(x, first, batch, inputs, SAMPLES: tl.constexpr, DEPTH: tl.constexpr):
    """Return x [SAMPLES, DEPTH] from an input on, in float32: 0 where inputs or samples are not there."""
    sample, column = tl.arange(0, SAMPLES), first + tl.arange(0, DEPTH)
    there = (sample < batch)[:, None] & (column < inputs)[None, :]
    return tl.load(x + sample[:, None] * inputs + column[None, :], mask=there, other=0.0).to(tl.float32)


@triton.jit
def skipping(
    x, values, bits, starts, bias, result, batch, inputs, outputs, words, each,
    SAMPLES: tl.constexpr, DEPTH: tl.constexpr, ROWS: tl.constexpr, SPARSE: tl.constexpr, BIASED: tl.constexpr,
):  # fmt: skip
    """Write ROWS outputs of x [batch, inputs] times columns, summed over one part of the inputs, `each` of them: whole steps.

    Columns are [inputs, outputs] or, where `SPARSE`, the values that are there, with a bit for each weight in words of 32
    [inputs, words], and where the values of each word begin. Of a column whose input is zero in all samples nothing is read.
    The inputs of the next step are loaded a step early, so that no weight waits for them.
    """
    row, part = tl.program_id(0) * ROWS + tl.arange(0, ROWS), tl.program_id(1)
    begin = part * each
    # Sums of each place of a step, which are added up at the end alone: no lane then waits for another in a step.
    total = tl.full((SAMPLES, DEPTH, ROWS), 0.0, tl.float32)
    number = inputs_at(x, begin, batch, inputs, SAMPLES, DEPTH)
    for first in range(begin, tl.minimum(begin + each, inputs), DEPTH):
        is_read = tl.reduce((number != 0.0).to(tl.int32), 0, plus) > 0
        there = is_read[:, None] & (row < outputs)[None, :]
        column = first + tl.arange(0, DEPTH)
        if SPARSE:
            word = column[:, None] * words + (row // 32)[None, :]
            its, bit = tl.load(bits + word, mask=there, other=0).to(tl.uint32), (row % 32).to(tl.uint32)[None, :]
            at = tl.load(starts + word, mask=there, other=0) + ones(its & ((1 << bit) - 1))
            weight = tl.load(values + at, mask=there & (((its >> bit) & 1) != 0), other=0.0)
        else:
            weight = tl.load(values + column[:, None].to(tl.int64) * outputs + row[None, :], mask=there, other=0.0)
        after = inputs_at(x, first + DEPTH, batch, inputs, SAMPLES, DEPTH)
        total += weight.to(tl.float32)[None, :, :] * number[:, :, None]
        number = after
    output = tl.reduce(total, 1, plus)
    if BIASED:
        added = tl.load(bias + row, mask=(row < outputs) & (part == 0), other=0.0)
        output += added.to(tl.float32)[None, :]
    sample = tl.arange(0, SAMPLES)
    written = (sample < batch)[:, None] & (row < outputs)[None, :]
    place = (part * batch + sample)[:, None] * outputs + row[None, :]
    tl.store(result + place, output.to(result.dtype.element_ty), mask=written)
