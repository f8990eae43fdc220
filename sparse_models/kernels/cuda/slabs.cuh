// What the products of sparse matrices share: x [columns, batch], a slab of columns and a tile of the batch at a time, in
// shared memory as [column][tile], and the non-zeros of a row, 32 at a time, a lane each.
//
// A load of 16 bytes by each of 8 neighbouring lanes covers all banks, so a group of GROUP >= 8 lanes reads a column's tile
// without conflicts wherever the column stands: GROUP lanes have PIECES pieces of 16 bytes each, and a warp's groups take
// different non-zeros of one row.
typedef NUMBER::Stored Stored;
constexpr int WIDE = 16 / sizeof(Stored);               // numbers in a piece
constexpr int OWN = WIDE * PIECES;                      // numbers of a tile that a lane has
constexpr int GROUPS = 32 / GROUP;                      // non-zeros that a warp multiplies at once
constexpr int TILE = GROUP * OWN;                       // batch columns of a tile
constexpr int TILE_BYTES = TILE * (int)sizeof(Stored);  // of one column
constexpr int WARPS = THREADS / 32;
constexpr bool TURNS = BUFFERS == 2;                    // a slab is copied while another one is multiplied
constexpr u32 ALL = 0xffffffffu;
constexpr int NO_COLUMN = 0x7fffffff;

template <class T, int N> struct alignas(sizeof(T) * N) Several { T at[N]; };
typedef Several<Stored, WIDE> Piece;

// The first of the tile's batch columns in the lane's piece of this number.
__device__ __forceinline__ int batch_of(int piece) { return (piece * GROUP + (int)(threadIdx.x % GROUP)) * WIDE; }

// Of N numbers that lie one after the other, from `at` on, those before `end`; 0 after it. ALIGNED: all or none of them are.
template <int N> __device__ __forceinline__ Several<Stored, N> read(const Stored* from, int at, int end) {
    Several<Stored, N> several = {};
    if (ALIGNED) {
        if (at < end) several = *(const Several<Stored, N>*)(from + at);
    } else {
#pragma unroll
        for (int k = 0; k < N; k++)
            if (at + k < end) several.at[k] = from[at + k];
    }
    return several;
}

// Begins to copy the tile from batch column `start` on of `count` columns from `first` on; past the batch's end stand zeros.
__device__ __forceinline__ void begin_slab(unsigned char* to, const Stored* x, int first, int count, int start, int batch) {
    constexpr int ACROSS = GROUP * PIECES;
    for (int i = threadIdx.x; i < count * ACROSS; i += THREADS) {
        const Stored* row = x + (long long)(first + i / ACROSS) * batch;
        const int at = start + i % ACROSS * WIDE;
        if (ALIGNED && at < batch) copy_async(to + 16 * i, row + at);
        else ((Piece*)to)[i] = read<WIDE>(row, at, batch);
    }
}

// How many of the warp's 32 columns, which ascend, lie before `end`.
__device__ __forceinline__ int before(int column, int end) { return __popc(__ballot_sync(ALL, column < end)); }
