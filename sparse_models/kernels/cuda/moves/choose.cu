// The first half of a mask update: which values survive, and which places are grown, of highest keys and of equal ones the
// first. Keys are found digit by digit, from the highest: a histogram of those that share the digits found so far says in
// which bin the next one is. Blocks have chunks of words, add up their histograms, and the last to do so goes on; sums of
// whole numbers are the same in whatever order. Of the last digit each block's own histogram is kept: it tells in which chunk
// the last of equal keys is, in which that block then looks for it.
//
// Phases: the digits of values, the words of survivors, the digits of scores. A launch does those from one on; where it is to
// do several, it has one block, which has all words. What is kept lies in `state`, 0 at first: of values, then of scores, the
// key so far, how many are chosen of those equal to it, and the last one's place; whether there were NaN; a ticket; a
// histogram.
#include "moves.cuh"
enum { KEY, LEFT, PLACE, NAN_AT = 6, TICKET, TOTALS };
const int BINS = 2048;

// Adds the digits of a block's words to its histogram, and says whether there were NaN.
template <class Source> __device__ __forceinline__ bool count(
    const Source& source, int begin, int end, u32 prefix, int above, int shift, int mask, int* histogram) {
    const int lane = threadIdx.x % 32;
    int zeros = 0;  // counted aside: where many gradients are 0, as of units that are, lanes would wait for one another
    bool has_nan = false;
    for (int first = begin + threadIdx.x / 32 * 32; first < end; first += THREADS) {
        Word own = {0, 0, 0u};
        if (first + lane < end) own = source.word(first + lane);
        for (int group = 0; group < 32 && first + group < end; group += 8) {
            u32 keys[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {  // all on their way at once
                const int from = __shfl_sync(ALL, own.first, group + i), width = __shfl_sync(ALL, own.width, group + i);
                keys[i] = lane < width ? source.key(from + lane) : NO_KEY;
            }
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const u32 skipped = __shfl_sync(ALL, own.skipped, group + i);
                if (keys[i] == NO_KEY) continue;
                has_nan |= keys[i] > Source::HIGHEST;
                if (skipped >> lane & 1 || (above && keys[i] >> above != prefix)) continue;
                const int digit = keys[i] >> shift & mask;
                if (digit) atomicAdd(histogram + digit, 1);
                else zeros++;
            }
        }
    }
#pragma unroll
    for (int step = 16; step; step /= 2) zeros += __shfl_xor_sync(ALL, zeros, step);
    if (lane == 0 && zeros) atomicAdd(histogram, zeros);
    return has_nan;
}

// The place of the last that is chosen of those whose key is the least one: number `left` from the words of a chunk on.
template <class Source> __device__ void find_place(
    const Source& source, int begin, int end, u32 key, int left, int* place, int* room) {
    for (int first = begin, running = 0; first < end; first += THREADS) {
        const int at = first + threadIdx.x;
        u32 equal = 0;
        if (at < end) {
            const Word own = source.word(at);
            for (int i = 0; i < own.width; i++) equal |= (u32)(source.key(own.first + i) == key) << i;
            equal &= ~own.skipped;
        }
        int total, before = running + sum_before(__popc(equal), room, total);
        if (before < left && left <= before + __popc(equal)) {
            for (; before + 1 < left; before++) equal &= equal - 1;
            *place = at * 32 + __ffs(equal) - 1;
        }
        running += total;
    }
}

// Finds digit number `pass` of the least key chosen, of `wanted` in all; `kept` is where it is kept of the state.
template <class Source> __device__ __forceinline__ void find_digit(
    const Source& source, int words, int chunk, int pass, int wanted, int* state, int* kept, u16* tails, int* shared) {
    const int above = pass == 0 ? 0 : pass == 1 && Source::IS_WIDE ? 20 : Source::IS_WIDE ? 9 : 7;
    const int shift = Source::IS_WIDE ? (pass == 0 ? 20 : pass == 1 ? 9 : 0) : pass == 0 ? 7 : 0;
    const int bins = Source::IS_WIDE ? (shift ? 2048 : 512) : pass == 0 ? 256 : 128;
    int *histogram = shared, *room = shared + BINS, *found = room + 32;  // found: a digit, and how many are left of it
    const u32 prefix = pass ? (u32)kept[KEY] : 0u;
    const int left = pass ? kept[LEFT] : wanted;
    for (int bin = threadIdx.x; bin < bins; bin += THREADS) histogram[bin] = 0;
    __syncthreads();
    const int begin = blockIdx.x * chunk;
    const bool has_nan = count(source, begin, min(words, begin + chunk), prefix, above, shift, bins - 1, histogram);
    if (has_nan) state[NAN_AT] = 1;
    __syncthreads();
    if (gridDim.x > 1) {
        int* totals = state + TOTALS;
        for (int bin = threadIdx.x; bin < bins; bin += THREADS) {
            if (histogram[bin]) atomicAdd(totals + bin, histogram[bin]);
            if (shift == 0) tails[(long long)blockIdx.x * bins + bin] = (u16)histogram[bin];
        }
        __threadfence();
        __syncthreads();
        if (threadIdx.x == 0) found[0] = atomicInc((u32*)state + TICKET, gridDim.x - 1) == gridDim.x - 1;
        __syncthreads();
        const bool is_last = found[0];
        if (!is_last) return;
        __threadfence();
        for (int bin = threadIdx.x; bin < bins; bin += THREADS) {
            histogram[bin] = __ldcg(totals + bin);
            totals[bin] = 0;
        }
        __syncthreads();
    }
    const int each = (bins + THREADS - 1) / THREADS, first = bins - 1 - (int)threadIdx.x * each;  // bins from the highest down
    int sum = 0, total;
    for (int bin = first; bin > first - each && bin >= 0; bin--) sum += histogram[bin];
    int before = sum_before(sum, room, total);
    if (before < left && left <= before + sum) {
        int bin = first;
        for (; before + histogram[bin] < left; bin--) before += histogram[bin];
        found[0] = bin, found[1] = left - before;
    }
    __syncthreads();
    const bool is_none = left == 0;  // above all keys
    const int digit = is_none ? 0 : found[0], now = is_none ? 0 : found[1];
    const u32 key = is_none ? NO_KEY : above ? prefix << (above - shift) | digit : (u32)digit;
    if (threadIdx.x == 0) kept[KEY] = (int)key, kept[LEFT] = now;
    if (shift) return;
    if (threadIdx.x == 0) kept[PLACE] = -1;
    __syncthreads();
    int chosen = blockIdx.x, rest = now;  // a chunk, and how many are left in it
    if (gridDim.x > 1) {
        for (int block = 0, running = 0; block < gridDim.x; block += THREADS) {
            const int at = block + threadIdx.x;
            const int own = at < gridDim.x ? __ldcg(tails + (long long)at * bins + digit) : 0;
            const int earlier = running + sum_before(own, room, total);
            if (earlier < now && now <= earlier + own) found[0] = at, found[1] = now - earlier;
            running += total;
        }
        __syncthreads();
        chosen = found[0], rest = found[1];
    }
    if (!is_none) find_place(source, chosen * chunk, min(words, chosen * chunk + chunk), key, rest, kept + PLACE, room);
}

// Notes of each word which places hold values, which of those survive, and how many values come before.
__device__ __forceinline__ void mark(
    const Values& values, Chosen chosen, const int* row_pointers, const INDEX* indices, int words, int words_of_row, u32* was,
    u32* alive, int* starts) {
    for (int at = blockIdx.x * THREADS + threadIdx.x; at < words; at += gridDim.x * THREADS) {
        const int row = at / words_of_row, column = at % words_of_row * 32, end = row_pointers[row + 1];
        int low = row_pointers[row], high = end;
        while (low < high) {  // the first of the row that is not before the word
            const int middle = low + (high - low) / 2;
            if ((int)indices[middle] < column) low = middle + 1;
            else high = middle;
        }
        u32 held = 0, surviving = 0;
        for (int place = low; place < end; place++) {
            const int bit = (int)indices[place] - column;
            if (bit >= 32) break;
            held |= 1u << bit;
            surviving |= (u32)chosen.has(values.key(place), place) << bit;
        }
        was[at] = held, alive[at] = surviving, starts[at] = low;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS) choose(
    const NUMBER* numbers, const INDEX* indices, const int* row_pointers, const SCORE* scores, const u32* drawn, int one,
    int other, int* state, u16* tails, u32* was, u32* alive, int* starts, int rows, int columns, int nnz, int survivors,
    int grown, int chunk, int from, int to) {
    DYNAMIC_SHARED(shared);
    int* room = (int*)shared;  // a histogram, sums of warps, what is found
    const Values values = {numbers, nnz};
    const int of_values = Values::IS_WIDE ? 3 : 2, words_of_row = (columns + 31) / 32, words = rows * words_of_row;
    const Scores source = scores_of(scores, drawn, one, other, alive, columns);
    for (int phase = from; phase < to; phase++) {
        if (phase < of_values) {
            find_digit(values, (nnz + 31) / 32, chunk, phase, survivors, state, state, tails, room);
        } else if (phase == of_values) {
            const Chosen chosen = {(u32)state[KEY], state[PLACE]};
            mark(values, chosen, row_pointers, indices, words, words_of_row, was, alive, starts);
        } else {
            find_digit(source, words, chunk, phase - of_values - 1, grown, state, state + 3, tails, room);
        }
        __syncthreads();
    }
}
