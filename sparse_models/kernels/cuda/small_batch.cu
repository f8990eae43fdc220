// y[batch, rows] = x[batch, columns] W^T + bias for a sparse W at small batches: bound by the bytes of W that are read.
// W lies in chunks of 8 non-zeros of one row (see _chunks.py); LANES neighbouring lanes take a row, a chunk each in turn, and
// gather from x in shared memory, [column][batch column], where the 8 lanes of a phase hold columns of different banks.
// MATRIX 0: x in float32, CUDA cores. MATRIX 1: x in 16 bit, gathered by ldmatrix into the tensor cores' second operand; the
// first is the lanes' values. Of the sums only those are right, and read, whose values and x are of the same 8 lanes.
// Macros: VALUE, MATRIX, WIDTH of a step in bits, COLUMNS of the batch a pass, LANES, DEPTH (chunks in flight), THREADS, and
// BLOCKS, how many are to fit a multiprocessor.
typedef VALUE::Stored Stored;
constexpr int PLANES = MATRIX ? (COLUMNS + 7) / 8 : (COLUMNS + 3) / 4;           // pieces of at most 16 bytes of a column of x
constexpr int PIECE = MATRIX || COLUMNS >= 4 ? 16 : 4 * COLUMNS;                 // bytes
constexpr int UNIT = 8 * PIECE;                                                  // bytes of 8 columns: steps are in these
constexpr int WORDS = WIDTH == 3 ? 1 : WIDTH == 16 ? 4 : 2;
constexpr int WARPS = THREADS / 32, ROWS = 32 / LANES;                           // rows a warp holds at a time
constexpr int QUADS = sizeof(Stored) / 2;                                        // loads of 16 bytes for a chunk's values
#include "chunks.cuh"
#include "small_sums.cuh"

// Two neighbouring columns of a row of x, zeros where x ends; past the first cache, which may hold what was there before this
// kernel began. WHOLE: every such pair lies aligned to its size.
struct Pair { Stored low, high; };
template <bool WHOLE> __device__ __forceinline__ Pair read_pair(const Stored* from, bool first, bool second) {
    Pair pair = {0, 0};
    if (!WHOLE) {
        if (first) pair.low = __ldcg(from);
        if (second) pair.high = __ldcg(from + 1);
    } else if (QUADS == 1) {
        const u32 word = first ? __ldcg((const u32*)from) : 0;
        pair.low = (Stored)(word & 0xffff), pair.high = (Stored)(word >> 16);
    } else if (first) {
        const float2 words = __ldcg((const float2*)from);
        pair.low = (Stored)words.x, pair.high = (Stored)words.y;
    }
    return pair;
}
// Brings a slab of x into shared memory: [plane][column][batch columns of the plane], zeros where x ends.
template <bool WHOLE>
__device__ __forceinline__ void stage(unsigned char* shared, const Stored* x, int batch, int columns, int here, int room) {
    constexpr int HELD = MATRIX ? (COLUMNS < 8 ? COLUMNS : 8) : (COLUMNS < 4 ? COLUMNS : 4);  // batch columns a plane
#pragma unroll
    for (int plane = 0; plane < PLANES; plane++) {
#pragma unroll(HELD > 4 ? 2 : 4)
        for (int i = threadIdx.x; i < room / 2; i += THREADS) {
            Pair pairs[HELD];
#pragma unroll
            for (int b = 0; b < HELD; b++) {
                const int own = plane * HELD + b;
                const Stored* from = x + (long long)own * columns + 2 * i;
                pairs[b] = read_pair<WHOLE>(from, own < batch && 2 * i < here, own < batch && 2 * i + 1 < here);
            }
            unsigned char* to = shared + plane * room * PIECE + 2 * i * PIECE;
#if MATRIX
            u32 low[4] = {0, 0, 0, 0}, high[4] = {0, 0, 0, 0};
#pragma unroll
            for (int b = 0; b < HELD; b++) {
                low[b / 2] |= (u32)pairs[b].low << (16 * (b & 1));
                high[b / 2] |= (u32)pairs[b].high << (16 * (b & 1));
            }
            const bool turned = threadIdx.x & 4;  // a phase of 8 lanes then writes to all banks
            const uint4 one = make_uint4(low[0], low[1], low[2], low[3]), two = make_uint4(high[0], high[1], high[2], high[3]);
            *(uint4*)(to + (turned ? PIECE : 0)) = turned ? two : one;
            *(uint4*)(to + (turned ? 0 : PIECE)) = turned ? one : two;
#else
#pragma unroll
            for (int b = 0; b < HELD; b++) {
                ((float*)to)[b] = VALUE::load(pairs[b].low);
                ((float*)(to + PIECE))[b] = VALUE::load(pairs[b].high);
            }
#endif
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) small_batch(
    const uint4* __restrict__ values, const u32* __restrict__ words, const u16* __restrict__ firsts,
    const int* __restrict__ pointers, const Stored* __restrict__ x, const Stored* __restrict__ bias, Stored* __restrict__ y,
    float* __restrict__ partial, u32* __restrict__ counters, int rows, int columns, int batch, int slabs, int slab_columns,
    int chunks) {
    DYNAMIC_SHARED(shared);
    let_next_begin();
    const int lane = threadIdx.x % 32, slab = blockIdx.y % slabs, pass = blockIdx.y / slabs, begin = pass * COLUMNS;
    const int room = slab_columns + 64, here = min(slab_columns, columns - slab * slab_columns);
    const int stride = gridDim.x * WARPS * ROWS;
    int row = (blockIdx.x + __reduce_max_sync(0xffffffffu, threadIdx.x / 32) * gridDim.x) * ROWS;
    Reader reader = {values, words, firsts, pointers + (long long)slab * rows, chunks, rows, row, stride, slab_columns / 8};
    Chunk ring[DEPTH];
    reader.peek(lane);
    reader.peek(lane);
    reader.turn(lane);
#pragma unroll
    for (int i = 0; i < DEPTH; i++) reader.load(ring[i], lane);
    wait_for_previous();
    const Stored* from = x + (long long)begin * columns + slab * slab_columns;
    const bool whole = columns % 2 == 0 && (size_t)x % (2 * sizeof(Stored)) == 0;
    if (whole) stage<true>(shared, from, batch - begin, columns, here, room);
    else stage<false>(shared, from, batch - begin, columns, here, room);
    __syncthreads();
    Sums sums;
    sums.clear();
    while (row < rows) {
#pragma unroll
        for (int i = 0; i < DEPTH; i++) {
            sums.add(ring[i], shared, room * PIECE, lane);
            const bool last = ring[i].last;
            reader.load(ring[i], lane);
            if (last) {
                const int own = row + lane / LANES;
                sums.finish(lane, [&](int column, float sum) {
                    if (own >= rows) return;
                    if (slabs > 1) partial[((long long)blockIdx.y * rows + own) * COLUMNS + column] = sum;
                    else if (begin + column < batch)
                        y[(long long)(begin + column) * rows + own] = VALUE::store(bias ? sum + VALUE::load(bias[own]) : sum);
                });
                sums.clear();
                row += stride;
                if (row >= rows) break;
            }
        }
    }
    if (slabs == 1) return;
    // The last block to come, of those that hold the same rows, adds the slabs, in their order.
    __threadfence();
    __syncthreads();
    u32* before = (u32*)shared;
    if (threadIdx.x == 0) *before = atomicInc(counters + pass * gridDim.x + blockIdx.x, (u32)slabs - 1);
    __syncthreads();
    if (*before != (u32)slabs - 1) return;
    __threadfence();
    for (int i = threadIdx.x;; i += THREADS) {
        const int column = i % COLUMNS, group = i / COLUMNS / ROWS * gridDim.x + blockIdx.x;
        const int own = group * ROWS + i / COLUMNS % ROWS;
        if (group * ROWS >= rows) break;
        if (own >= rows || begin + column >= batch) continue;
        float sum = bias ? VALUE::load(bias[own]) : 0.f;
        for (int s = pass * slabs; s < (pass + 1) * slabs; s++)
            sum += __ldcg(partial + ((long long)s * rows + own) * COLUMNS + column);
        y[(long long)(begin + column) * rows + own] = VALUE::store(sum);
    }
}
