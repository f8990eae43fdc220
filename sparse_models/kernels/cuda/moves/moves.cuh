// What the kernels of a mask update share: words of 32 places, and sums over a block. Keys are integers in the order of scores,
// by which a NaN, of whatever bits, is the highest. A row has whole words, of which the last may reach beyond its end.
#define ALL 0xffffffffu
const int WARPS = THREADS / 32;
const u32 NO_KEY = 0xffffffffu;

struct Word {
    int first, width;  // where its numbers begin, and how many there are
    u32 skipped;       // those of them that are not to be chosen
};

// The key of a number's magnitude, by the bits of its type and of that type's infinity.
template <class Bits> __device__ __forceinline__ u32 magnitude(Bits bits, u32 infinity) {
    return min((u32)(bits & (Bits)(sizeof(Bits) == 4 ? 0x7fffffffu : 0x7fffu)), infinity + 1);
}

// Values in their order, by magnitude.
struct Values {
    static const bool IS_WIDE = sizeof(NUMBER) == 4;
    static const u32 HIGHEST = INFINITE;
    const NUMBER* numbers;
    int count;
    __device__ __forceinline__ Word word(int at) const { return {at * 32, min(32, count - at * 32), 0u}; }
    __device__ __forceinline__ u32 key(int place) const { return magnitude(numbers[place], INFINITE); }
};

// Scores of every place but of survivors: a magnitude, or without scores a random number of 30 bits, that of the place by two
// keys (`define_numbers`).
struct Scores {
    static const bool IS_WIDE = sizeof(SCORE) == 4;
    static const u32 HIGHEST = SCORE_INFINITE ? SCORE_INFINITE : 0x3fffffffu;
    const SCORE* scores;
    const u32* alive;
    int columns, words;  // of a row
    u32 keys[2];
    __device__ __forceinline__ Word word(int at) const {
        const int row = at / words, column = at % words * 32;
        return {row * columns + column, min(32, columns - column), alive[at]};
    }
    __device__ __forceinline__ u32 key(int place) const {
        if (SCORE_INFINITE) return magnitude(scores[place], SCORE_INFINITE);
        u32 found = place;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            found += keys[i];
            found = (found ^ (found >> 16)) * 0x7feb352du;
            found = (found ^ (found >> 15)) * 0x846ca68bu;
            found ^= found >> 16;
        }
        return found >> 2;
    }
};

__device__ __forceinline__ Scores scores_of(
    const SCORE* scores, const u32* drawn, int one, int other, const u32* alive, int columns) {
    Scores found = {scores, alive, columns, (columns + 31) / 32, {(u32)one, (u32)other}};
    if (!SCORE_INFINITE && drawn) found.keys[0] = drawn[0], found.keys[1] = drawn[1];
    return found;
}

// What is chosen: keys above the least one and, of those equal to it, all up to a place.
struct Chosen {
    u32 key;
    int place;
    __device__ __forceinline__ bool has(u32 other, int at) const { return other > key || (other == key && at <= place); }
};

// The sum of the values of threads before this one, and of all; `room` has a number for each warp. All threads of the block
// take part.
__device__ __forceinline__ int sum_before(int value, int* room, int& total) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int sum = value;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int other = __shfl_up_sync(ALL, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();  // the room may still be read by the call before
    if (lane == 31) room[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
    for (int i = 0; i < WARPS; i++) {
        if (i == warp) before = total;
        total += room[i];
    }
    return before + sum - value;
}
