// Reads the chunks of a sparse matrix (see _chunks.py) ahead, a row to LANES lanes, and decodes their columns.
#ifndef EMULATED
__device__ __forceinline__ uint4 read_once(const uint4* from) {  // not kept in the first cache, which shared memory needs
    uint4 read;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(read.x), "=r"(read.y), "=r"(read.z), "=r"(read.w) : "l"(from));
    return read;
}
#endif

struct Chunk {
    uint4 values[QUADS];
    u32 words[WORDS];
    int origin;  // WIDTH 3: where the chunk is expected to begin, in units; else unused
    bool last;   // of its row
};

// What is read ahead: goes through this warp's rows, chunk by chunk, and on to the next row before the last one is summed.
struct Reader {
    const uint4* values;
    const u32* words;
    const u16* firsts;
    const int* pointers;
    long long plane;  // chunks in all: the second half of 4-byte values lies so far behind the first
    int rows, row, stride, units, begin, count, step, steps;
    int next_begin, next_end, after_begin, after_end;  // pointers of the next row and the one after: asked for long before
    float spread;

    __device__ __forceinline__ void peek(int lane) {
        const int own = row + lane / LANES;
        next_begin = after_begin, next_end = after_end;
        after_begin = after_end = 0;
        if (own < rows) after_begin = __ldg(pointers + own), after_end = __ldg(pointers + own + 1);
        row += stride;
    }
    __device__ __forceinline__ void turn(int lane) {
        begin = next_begin, count = next_end - next_begin, step = 0;
        const int most = (int)__reduce_max_sync(0xffffffffu, (u32)count);  // so that the compiler knows all lanes go one way
        steps = max(1, (most + LANES - 1) / LANES);  // an empty row has a step too, in which its zero is written
        if (WIDTH == 3) spread = (float)(8 * units) / (float)max(count, 1);
        peek(lane);
    }
    __device__ __forceinline__ void load(Chunk& chunk, int lane) {
        const int at = step * LANES + lane % LANES;
#if MATRIX  // the values of 8 chunks lie as the tensor cores want them: steps 0 2 4 6 of two lanes' chunks, then 1 3 5 7
        const int half = min(8, count - (at & ~7)) / 2;
        const bool valued = (at & 3) < half;
        const int place = begin + (at & ~7) + ((at >> 2) & 1) * half + (at & 3);
#else
        const bool valued = at < count;
        const int place = begin + at;
#endif
#pragma unroll
        for (int i = 0; i < QUADS; i++)
            chunk.values[i] = valued ? read_once(values + i * plane + place) : make_uint4(0, 0, 0, 0);
#pragma unroll
        for (int i = 0; i < WORDS; i++) chunk.words[i] = 0;
        chunk.origin = 0;
        if (at < count) {
            const int index = begin + at;
            if (WIDTH == 3) {
                chunk.words[0] = __ldg(words + index);
                chunk.origin = (int)((float)(at >> 3) * spread);
            } else if (WIDTH == 4) {
                chunk.words[0] = __ldg(words + index);
                chunk.words[WORDS > 1] = __ldg(firsts + index);
            } else if (WIDTH == 6) {
                const uint2 read = __ldg((const uint2*)words + index);
                chunk.words[0] = read.x, chunk.words[WORDS > 1] = read.y;
            } else {
                const uint4 read = __ldg((const uint4*)words + index);
                chunk.words[0] = read.x, chunk.words[WORDS > 1] = read.y;
                chunk.words[WORDS > 2 ? 2 : 0] = read.z, chunk.words[WORDS > 2 ? 3 : 0] = read.w;
            }
        }
        chunk.last = ++step >= steps;
        if (chunk.last) turn(lane);
    }
};

// The byte in shared memory at which a chunk's first column begins.
__device__ __forceinline__ u32 first_of(const Chunk& chunk) {
    const u32 word = chunk.words[0], high = chunk.words[WORDS > 1];
    if (WIDTH == 3) return (u32)(chunk.origin + ((int)word >> 24)) * UNIT + ((word >> 21) & 7) * PIECE;
    return (WIDTH == 4 ? high : WIDTH == 6 ? high >> 12 : word & 0xffff) * PIECE;
}
// The bytes from non-zero j - 1 of a chunk to j, less one unit.
__device__ __forceinline__ u32 step_to(const Chunk& chunk, int j) {
    if (WIDTH == 6) return (j <= 5 ? chunk.words[0] >> (6 * (j - 1)) : chunk.words[WORDS > 1] >> (6 * (j - 6))) % 64 * UNIT;
    if (WIDTH == 16) return (chunk.words[WORDS > 2 ? j / 2 : 0] >> (16 * (j & 1))) % 65536 * UNIT;
    return (chunk.words[0] >> (WIDTH * (j - 1))) % (1 << WIDTH) * UNIT;
}
