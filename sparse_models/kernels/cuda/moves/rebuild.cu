// The second half of a mask update: from what was chosen to the index both ways, with values and optimizer slots. Phases: the
// words of the new mask, and how many it keeps in each chunk of them; a chunk's part of the rows, and the words of the
// transpose, some groups of 32 columns a task, with how many those have; the transpose's index. Where a value comes to lie is
// how many come before it, which a task finds by adding up those of the tasks before. A launch does phases from one on; where
// it is to do several, it has one block. In place, values are set aside first: `from` is where they are set aside, `to`
// theirs.
#include "moves.cuh"
enum { KEY = 3, PLACE = 5 };  // of `state`, as choose.cu leaves it
struct Arrays { NUMBER* at[4]; };

__device__ __forceinline__ int sum_of(const int* counts, int number, int* room) {
    int sum = 0, total;
    for (int i = threadIdx.x; i < number; i += THREADS) sum += counts[i];
    sum_before(sum, room, total);
    return total;
}

// Words of the new mask, and how many a task's have.
__device__ __forceinline__ void new_words(
    const Scores& source, Chosen chosen, int begin, int end, u32* now, int* count, int* room) {
    const int lane = threadIdx.x % 32;
    int sum = 0, total;
    for (int first = begin + threadIdx.x / 32 * 32; first < end; first += THREADS) {
        Word own = {0, 0, 0u};
        if (first + lane < end) own = source.word(first + lane);
        u32 kept = own.skipped;
        for (int i = 0; i < 32 && first + i < end; i++) {
            const int from = __shfl_sync(ALL, own.first, i), width = __shfl_sync(ALL, own.width, i);
            const u32 skipped = __shfl_sync(ALL, own.skipped, i);
            const bool is_free = lane < width && !(skipped >> lane & 1);
            const u32 grown = __ballot_sync(ALL, is_free && chosen.has(source.key(from + lane), (first + i) * 32 + lane));
            if (lane == i) kept |= grown;
        }
        if (first + lane < end) now[first + lane] = kept;
        sum += __popc(kept);
    }
    sum_before(sum, room, total);
    if (threadIdx.x == 0) *count = total;
}

// A task's part of the rows: where they start, columns, values and slots; `ranks` is how many come before each word.
__device__ __forceinline__ void write_rows(
    int begin, int end, int before, int columns, const u32* now, const u32* was, const int* starts, int* ranks,
    int* row_pointers, INDEX* indices, const Arrays& from, const Arrays& to, int arrays, int* room) {
    const int words = (columns + 31) / 32;
    for (int first = begin; first < end; first += THREADS) {
        const int at = first + threadIdx.x;
        u32 bits = at < end ? now[at] : 0u;
        int total, place = before + sum_before(__popc(bits), room, total);
        before += total;
        if (at >= end) continue;
        const int row = at / words, column = at % words * 32, start = starts[at];
        const u32 held = was[at];
        ranks[at] = place;
        if (column == 0) row_pointers[row] = place;
        for (; bits; bits &= bits - 1, place++) {
            const int bit = __ffs(bits) - 1;
            const bool is_held = held >> bit & 1;
            const int source = start + __popc(held & ((1u << bit) - 1));
            indices[place] = (INDEX)(column + bit);
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (i < arrays) to.at[i][place] = is_held ? from.at[i][source] : (NUMBER)0;
        }
    }
}

// The words of some groups of 32 columns of the transpose, and how many they have.
__device__ __forceinline__ void turn(
    int begin, int end, int rows, int columns, const u32* now, u32* turned, int* count, int* room) {
    const int lane = threadIdx.x % 32, words = (columns + 31) / 32, down = (rows + 31) / 32;
    int sum = 0, total;
    for (int tile = begin * down + threadIdx.x / 32; tile < end * down; tile += WARPS) {
        const int group = tile / down, part = tile % down, row = part * 32 + lane, column = group * 32 + lane;
        const u32 word = row < rows ? now[row * words + group] : 0u;
        u32 own = 0;
#pragma unroll
        for (int i = 0; i < 32; i++) {
            const u32 bits = __ballot_sync(ALL, word >> i & 1);
            if (lane == i) own = bits;
        }
        if (column < columns) turned[column * down + part] = own;
        sum += __popc(own);
    }
    sum_before(sum, room, total);
    if (threadIdx.x == 0) *count = total;
}

// The index of some groups of columns of the transpose: where they start, rows, and where in row order each value is.
__device__ __forceinline__ void write_columns(
    int begin, int end, int before, int rows, int columns, const u32* now, const int* ranks, const u32* turned,
    int* column_pointers, ROW* row_indices, int* transposition, int* room) {
    const int words = (columns + 31) / 32, down = (rows + 31) / 32, beyond = min(columns, end * 32) * down;
    for (int first = begin * 32 * down; first < beyond; first += THREADS) {
        const int at = first + threadIdx.x;
        u32 bits = at < beyond ? turned[at] : 0u;
        int total, place = before + sum_before(__popc(bits), room, total);
        before += total;
        if (at >= beyond) continue;
        const int column = at / down, row = at % down * 32;
        if (row == 0) column_pointers[column] = place;
        for (; bits; bits &= bits - 1, place++) {
            const int own = row + __ffs(bits) - 1, word = own * words + column / 32;
            row_indices[place] = (ROW)own;
            transposition[place] = ranks[word] + __popc(now[word] & ((1u << column % 32) - 1));
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) rebuild(
    const SCORE* scores, const u32* drawn, int one, int other, const int* state, const u32* was, const u32* alive,
    const int* starts, u32* now, int* ranks, u32* turned, int* counts, int* row_pointers, INDEX* indices, int* column_pointers,
    ROW* row_indices, int* transposition, NUMBER* from_0, NUMBER* from_1, NUMBER* from_2, NUMBER* from_3, NUMBER* to_0,
    NUMBER* to_1, NUMBER* to_2, NUMBER* to_3, int arrays, int sets_aside, int rows, int columns, int nnz, int chunk, int each,
    int first, int last) {
    DYNAMIC_SHARED(shared);
    int* room = (int*)shared;  // sums of warps
    const Arrays from = {{from_0, from_1, from_2, from_3}}, to = {{to_0, to_1, to_2, to_3}};
    const int groups = (columns + 31) / 32, words = rows * groups, chunks = (words + chunk - 1) / chunk;
    const int panels = (groups + each - 1) / each;
    const Scores source = scores_of(scores, drawn, one, other, alive, columns);
    for (int phase = first; phase < last; phase++) {
        const int tasks = phase == 0 ? chunks : phase == 1 ? chunks + panels : panels;
        for (int task = blockIdx.x; task < tasks; task += gridDim.x) {
            const int begin = task * chunk, end = min(words, begin + chunk), panel = phase == 1 ? task - chunks : task;
            const int group = panel * each, beyond = min(groups, group + each);
            if (phase == 0) {
                const Chosen chosen = {(u32)state[KEY], state[PLACE]};
                new_words(source, chosen, begin, end, now, counts + task, room);
            } else if (phase == 1 && task < chunks) {
                const int before = sum_of(counts, task, room);
                write_rows(begin, end, before, columns, now, was, starts, ranks, row_pointers, indices, from, to, arrays, room);
            } else if (phase == 1) {
                turn(group, beyond, rows, columns, now, turned, counts + task, room);
            } else {
                const int before = sum_of(counts + chunks, task, room);
                write_columns(
                    group, beyond, before, rows, columns, now, ranks, turned, column_pointers, row_indices, transposition,
                    room);
            }
        }
        if (phase == 0 && sets_aside) {
            for (int at = blockIdx.x * THREADS + threadIdx.x; at < nnz; at += gridDim.x * THREADS) {
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (i < arrays) from.at[i][at] = to.at[i][at];
            }
        }
        if (phase == 2 && blockIdx.x == 0 && threadIdx.x == 0) row_pointers[rows] = column_pointers[columns] = nnz;
        __syncthreads();
    }
}
