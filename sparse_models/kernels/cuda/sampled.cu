// grad [rows, batch] times x [columns, batch] transposed, at the non-zeros of a matrix [rows, columns] alone. A block takes
// rows and a part of the batch, tile after tile, and of each tile slab after slab of x: with BUFFERS 2 the next one is copied
// meanwhile, with 1 it is waited for, but twice as wide.
//
// A row's tile of grad stays in registers. A warp takes 32 non-zeros at a time, a group every GROUPS-th of them, GROUP in all:
// so each lane has GROUP sums over its own batch columns, and GROUP - 1 exchanges leave each lane with one whole sum. What
// earlier tiles gave is added by the lane that wrote it: nothing is atomic, and the order of additions is always the same.
// The sums of grad's rows, a bias's gradient, come from the same tiles: they stand from `row_sums_at` on, if it is not below 0.
#include "slabs.cuh"
typedef float Sums[GROUP];

__device__ __forceinline__ void read_tile(Piece (&tile)[PIECES], const Stored* grad, int row, int rows, int start, int batch) {
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++)
        tile[piece] = read<WIDE>(grad + (long long)row * batch, start + batch_of(piece), row < rows ? batch : 0);
}

// What the lane's batch columns give for the first N of the group's non-zeros. There is no branch between them, so that all
// loads are on their way at once: with one, a step of 4 non-zeros would wait for its loads before the next one begins its own.
template <int N>
__device__ __forceinline__ void multiply(Sums& sums, const float (&g)[OWN], const unsigned char* own, const u32* places) {
#pragma unroll
    for (int i = 0; i < GROUP; i++) {
        sums[i] = 0.f;
        if (i >= N) continue;
        const u32 place = ((const Several<u32, 4>*)places)[i / 4].at[i % 4];
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            const Piece numbers = *(const Piece*)(own + place + piece * GROUP * 16);
#pragma unroll
            for (int k = 0; k < WIDE; k++) sums[i] += g[piece * WIDE + k] * NUMBER::load(numbers.at[k]);
        }
    }
}

// Adds up what the lanes of a group have summed apart: each is left, in sums[0], with the sum of its own number below N.
template <int N> __device__ __forceinline__ void add_lanes(Sums& sums) {
#pragma unroll
    for (int step = N / 2; step; step /= 2) {
        const bool upper = threadIdx.x & step;
#pragma unroll
        for (int i = 0; i < step; i++) {
            const float kept = upper ? sums[i + step] : sums[i], sent = upper ? sums[i] : sums[i + step];
            sums[i] = kept + __shfl_xor_sync(ALL, sent, step);
        }
    }
#pragma unroll
    for (int step = N; step < GROUP; step *= 2) sums[0] += __shfl_xor_sync(ALL, sums[0], step);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) sampled(
    const int* __restrict__ pointers, const INDEX* __restrict__ indices, const Stored* __restrict__ grad,
    const Stored* __restrict__ x, float* result, int rows, int columns, int batch, int row_sums_at, int slab, int tiles_each,
    int count_all) {
    DYNAMIC_SHARED(shared);  // one slab or two that take turns, places
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = lane / GROUP;
    const int slabs = (columns + slab - 1) / slab, first = (blockIdx.x * WARPS + warp) * ROWS;
    const int tile = blockIdx.y * tiles_each, tiles = min(tiles_each, (batch + TILE - 1) / TILE - tile), steps = tiles * slabs;
    const unsigned char* own = shared + lane % GROUP * 16;
    u32* places = (u32*)(shared + (TURNS && steps > 1 ? 2 : 1) * slab * TILE_BYTES) + warp * 64;
    float* sums_of = result + (long long)blockIdx.y * count_all;
    const int number = lane % GROUP * GROUPS + group;             // of 32 non-zeros, the one whose sum the lane is left with
    const int staged_at = lane % GROUPS * GROUP + lane / GROUPS;  // so that a group's places lie one after the other
    // Lane r holds where row r is and where it ends.
    const bool mine = lane < ROWS && first + lane < rows;
    const int begin = mine ? pointers[first + lane] : 0, end = mine ? pointers[first + lane + 1] : 0;
    int place = begin, turn = 0;
    float row_sum = 0.f;  // of the lane's row
    begin_slab(shared, x, 0, min(slab, columns), tile * TILE, batch);
    copies_end_group();
    for (int step = 0; step < steps; step++) {
        const int s = step % slabs, start = (tile + step / slabs) * TILE, next = (s + 1) % slabs * slab;
        const int next_start = (tile + (step + 1) / slabs) * TILE;
        unsigned char* to = shared + (TURNS ? (step + 1) % 2 * slab * TILE_BYTES : 0);
        if (TURNS) {
            if (step + 1 < steps) begin_slab(to, x, next, min(slab, columns - next), next_start, batch);
            copies_end_group();
        }
        if (s == 0) place = begin;
        int at = __shfl_sync(ALL, place, 0), stop = __shfl_sync(ALL, end, 0);
        int ahead = at + lane < stop ? (int)indices[at + lane] : NO_COLUMN;
        Piece tile_ahead[PIECES];
        read_tile(tile_ahead, grad, first, rows, start, batch);
        copies_wait<TURNS>();
        __syncthreads();
        // Below 0 maybe, until a column is added.
        const u32 base = (u32)TILE_BYTES * ((TURNS ? step % 2 * slab : 0) - s * slab);
        for (int r = 0; r < ROWS && first + r < rows; r++) {
            float g[OWN];
#pragma unroll
            for (int k = 0; k < OWN; k++) g[k] = NUMBER::load(tile_ahead[k / WIDE].at[k % WIDE]);
            if (s == 0 && row_sums_at >= 0) {
                float sum = 0.f;
#pragma unroll
                for (int k = 0; k < OWN; k++) sum += g[k];
#pragma unroll
                for (int by = GROUP / 2; by; by /= 2) sum += __shfl_xor_sync(ALL, sum, by);
                if (lane == r) row_sum += sum;
            }
            const int after = (r + 1) % ROWS;
            const int after_at = __shfl_sync(ALL, place, after), after_stop = __shfl_sync(ALL, end, after);
            if (r + 1 < ROWS) read_tile(tile_ahead, grad, first + r + 1, rows, start, batch);
            while (true) {
                const int count = before(ahead, (s + 1) * slab);
                places[turn + staged_at] = lane < count ? base + ahead * TILE_BYTES : base + s * slab * TILE_BYTES;
                __syncwarp();
                float sum = 0.f;
                if (step >= slabs && number < count) sum = sums_of[at + number];
                const bool ended = count < 32;
                const int from = (ended ? after_at : at + 32) + lane;
                ahead = from < (ended ? after_stop : stop) ? (int)indices[from] : NO_COLUMN;
                if (count) {
                    Sums sums;
                    const u32* of = places + turn + group * GROUP;
                    if (count <= 8) {  // few are added up with few exchanges
                        multiply<GROUP / 4>(sums, g, own, of);
                        add_lanes<GROUP / 4>(sums);
                    } else if (count <= 16) {
                        multiply<GROUP / 2>(sums, g, own, of);
                        add_lanes<GROUP / 2>(sums);
                    } else {
                        if (count <= 24) multiply<GROUP / 4 * 3>(sums, g, own, of);
                        else multiply<GROUP>(sums, g, own, of);
                        add_lanes<GROUP>(sums);
                    }
                    if (number < count) sums_of[at + number] = sum + sums[0];
                }
                at += count;
                turn ^= 32;
                if (ended) break;
            }
            if (lane == r) place = at;
            at = after_at, stop = after_stop;
        }
        __syncthreads();
        if (!TURNS && step + 1 < steps) {
            begin_slab(to, x, next, min(slab, columns - next), next_start, batch);
            copies_end_group();
        }
    }
    if (mine && row_sums_at >= 0) sums_of[row_sums_at + first + lane] = row_sum;
}
