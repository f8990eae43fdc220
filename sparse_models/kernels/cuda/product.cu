// A sparse matrix [rows, columns] times x [columns, batch]. A block takes WARPS * ROWS rows and some tiles of the batch, one
// after the other; a warp takes ROWS rows, whose sums stay in registers while slab after slab of x passes through shared
// memory. With BUFFERS 2 the next slab, of this tile or of the one after it, is copied meanwhile; with 1 it is waited for, but
// slabs are twice as wide: what each row of each slab costs is then paid half as often, which is more where rows are sparse.
//
// The bound is shared memory: a load of 16 bytes for 4 multiply-adds. So a row's non-zeros are staged 32 at a time, as pairs of
// a value and a place in shared memory: two of them are one load for a whole group. They are filled up with a value of 0 at a
// place that holds zeros, so that what x holds elsewhere, infinities and NaN too, is no part of a sum that it is not to be in.
#include "slabs.cuh"
constexpr int STEPS = UNROLL;  // a pragma takes no macro
struct Pair {
    float value;
    u32 place;
};
struct NonZero {
    float value;
    int column;
};

__device__ __forceinline__ NonZero non_zero(const INDEX* indices, const Stored* values, int at, int end) {
    return at < end ? NonZero{NUMBER::load(values[at]), (int)indices[at]} : NonZero{0.f, NO_COLUMN};
}

// Adds up what the groups of a warp have summed apart: group g is left with the numbers from g * OWN / GROUPS on.
__device__ __forceinline__ void add_groups(float (&sums)[OWN]) {
#pragma unroll
    for (int step = 16; step >= GROUP; step /= 2) {
        const bool upper = threadIdx.x & step;
        const int half = OWN * step / 32;
#pragma unroll
        for (int i = 0; i < half; i++) {
            const float kept = upper ? sums[i + half] : sums[i], sent = upper ? sums[i] : sums[i + half];
            sums[i] = kept + __shfl_xor_sync(ALL, sent, step);
        }
    }
}

// Ends a tile: writes what was summed for each of the warp's rows, with bias and ReLU; the sums begin anew.
__device__ __forceinline__ void write_sums(
    float (&sums)[ROWS][OWN], const Stored* bias, const Stored* passed, Stored* result, int first, int rows, int start,
    int batch, int relu) {
    const int group = threadIdx.x % 32 / GROUP;
    constexpr int LEFT = OWN / GROUPS, RUN = LEFT < WIDE ? LEFT : WIDE;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        const int row = first + r;
        if (row >= rows) break;
        add_groups(sums[r]);
        const float added = bias ? NUMBER::load(bias[row]) : 0.f;
#pragma unroll
        for (int i = 0; i < LEFT; i += RUN) {
            const int number = group * LEFT + i, from = start + batch_of(number / WIDE) + number % WIDE;
            Several<Stored, RUN> run, open = {};
            if (passed) open = read<RUN>(passed + (long long)row * batch, from, batch);
#pragma unroll
            for (int k = 0; k < RUN; k++) {
                const float sum = sums[r][i + k] + added;
                const bool stopped = (relu && sum < 0.f) || (passed && NUMBER::load(open.at[k]) <= 0.f);
                run.at[k] = NUMBER::store(stopped ? 0.f : sum);
            }
            Stored* to = result + (long long)row * batch + from;
            if (ALIGNED) {
                if (from < batch) *(Several<Stored, RUN>*)to = run;
            } else {
#pragma unroll
                for (int k = 0; k < RUN; k++)
                    if (from + k < batch) to[k] = run.at[k];
            }
        }
#pragma unroll
        for (int i = 0; i < OWN; i++) sums[r][i] = 0.f;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) product(
    const int* __restrict__ pointers, const INDEX* __restrict__ indices, const Stored* values,
    const Stored* __restrict__ x, const Stored* __restrict__ bias, const Stored* __restrict__ passed,
    Stored* __restrict__ result, int rows, int columns, int batch, int slab, int tiles_each, int relu) {
    DYNAMIC_SHARED(shared);  // zeros, a slab or two that take turns, pairs
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / GROUP;
    const int slabs = (columns + slab - 1) / slab, first = (blockIdx.x * WARPS + warp) * ROWS;
    const int tile = blockIdx.y * tiles_each, steps = min(tiles_each, (batch + TILE - 1) / TILE - tile) * slabs;
    const unsigned char* own = shared + lane % GROUP * 16;
    Pair* pairs = (Pair*)(shared + (1 + (TURNS && steps > 1 ? 2 : 1) * slab) * TILE_BYTES) + warp * 64;
    for (int i = threadIdx.x; i < GROUP * PIECES; i += THREADS) ((Piece*)shared)[i] = Piece{};
    // Lane r holds where row r is and where it ends.
    const bool mine = lane < ROWS && first + lane < rows;
    const int begin = mine ? pointers[first + lane] : 0, end = mine ? pointers[first + lane + 1] : 0;
    int place = begin;
    float sums[ROWS][OWN] = {};
    begin_slab(shared + TILE_BYTES, x, 0, min(slab, columns), tile * TILE, batch);
    copies_end_group();
    int at = __shfl_sync(ALL, place, 0), stop = __shfl_sync(ALL, end, 0), turn = 0;
    wait_for_previous();  // which may still be gathering the values: they are no __restrict__, so that no load is before this
    NonZero ahead = non_zero(indices, values, at + lane, stop);
    for (int step = 0; step < steps; step++) {
        const int s = step % slabs, next = (s + 1) % slabs * slab, start = (tile + step / slabs) * TILE;
        const bool last = s == slabs - 1;
        unsigned char* to = shared + TILE_BYTES * (1 + (TURNS ? (step + 1) % 2 * slab : 0));
        if (TURNS) {
            if (step + 1 < steps) begin_slab(to, x, next, min(slab, columns - next), start + last * TILE, batch);
            copies_end_group();
        }
        copies_wait<TURNS>();
        __syncthreads();
        // Below 0 maybe, until a column is added.
        const u32 base = (u32)TILE_BYTES * (1 + (TURNS ? step % 2 * slab : 0) - s * slab);
#pragma unroll
        for (int r = 0; r < ROWS; r++) {
            const int after = (r + 1) % ROWS;
            const int after_at = __shfl_sync(ALL, place, after), after_stop = __shfl_sync(ALL, end, after);
            while (true) {
                const int count = before(ahead.column, (s + 1) * slab);
                pairs[turn + lane] = lane < count ? Pair{ahead.value, base + ahead.column * TILE_BYTES} : Pair{0.f, 0};
                __syncwarp();
                at += count;
                // What comes next is on its way while this is multiplied: of this row, or of the one after it.
                const bool ended = count < 32, moves = ended && ROWS > 1;
                ahead = non_zero(indices, values, (moves ? after_at : at) + lane, moves ? after_stop : stop);
                const Several<Pair, 2>* staged = (const Several<Pair, 2>*)(pairs + turn) + group;
#pragma unroll STEPS
                for (int i = 0; 2 * i < count; i += GROUPS) {
                    const Several<Pair, 2> two = staged[i];
#pragma unroll
                    for (int j = 0; j < 2; j++)
#pragma unroll
                        for (int piece = 0; piece < PIECES; piece++) {
                            const Piece numbers = *(const Piece*)(own + two.at[j].place + piece * GROUP * 16);
#pragma unroll
                            for (int k = 0; k < WIDE; k++)
                                sums[r][piece * WIDE + k] += two.at[j].value * NUMBER::load(numbers.at[k]);
                        }
                }
                turn ^= 32;
                if (ended) break;
            }
            if (lane == r) place = last ? begin : at;
            if (ROWS > 1) {
                at = after_at, stop = after_stop;
            } else if (last && step + 1 < steps) {
                at = __shfl_sync(ALL, place, 0);
                ahead = non_zero(indices, values, at + lane, stop);
            }
        }
        __syncthreads();
        if (!TURNS && step + 1 < steps) {
            begin_slab(to, x, next, min(slab, columns - next), start + last * TILE, batch);
            copies_end_group();
        }
        if (last) write_sums(sums, bias, passed, result, first, rows, start, batch, relu);
    }
    if (slabs == 0)  // a matrix without columns
        for (int start = tile * TILE; start < min(batch, (tile + tiles_each) * TILE); start += TILE)
            write_sums(sums, bias, passed, result, first, rows, start, batch, relu);
}
