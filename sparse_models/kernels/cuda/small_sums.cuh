// Sums of a row over the batch columns: a lane adds chunks, LANES lanes then end with the row's sums.
#if MATRIX
#ifndef EMULATED
// Each lane names a row of 16 bytes; four 8x8 matrices come out, transposed: the second operands of two products.
__device__ __forceinline__ void gather(u32 (&out)[4], const unsigned char* shared, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3]) : "r"((u32)__cvta_generic_to_shared(shared) + at));
}
// Row lane / 4 of sums grows by the even values of its 4 lanes times the matrix `first`, and the odd ones times `second`.
// The lower half of the product, of 16 rows, nobody reads: `any` leaves the compiler its registers.
template <class T> __device__ __forceinline__ void multiply(float (&sums)[4], u32 even, u32 odd, u32 first, u32 second);
#define MULTIPLY(TYPE, NAME) \
    template <> __device__ __forceinline__ void multiply<TYPE>(float (&s)[4], u32 even, u32 odd, u32 first, u32 second) { \
        asm("{.reg .b32 any; mma.sync.aligned.m16n8k16.row.col.f32." NAME "." NAME ".f32 {%0, %1, %2, %3}, " \
            "{%4, any, %5, any}, {%6, %7}, {%0, %1, %2, %3};}" \
            : "+f"(s[0]), "+f"(s[1]), "+f"(s[2]), "+f"(s[3]) : "r"(even), "r"(odd), "r"(first), "r"(second)); \
    }
MULTIPLY(Bfloat16, "bf16")
MULTIPLY(Float16, "f16")
#endif

struct Sums {
    float all[PLANES][2][2][4];  // of odd and even steps, of two pairs of 8 lanes
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < PLANES * 16; i++) (&all[0][0][0][0])[i] = 0.f;
    }
    __device__ __forceinline__ void add(const Chunk& chunk, const unsigned char* shared, u32 plane_bytes, int lane) {
        const uint4& read = chunk.values[0];
        const u32 mask = lane & 8 ? 0 : 0xffffffffu;
        const u32 even[4] = {read.x & mask, read.y & mask, read.z & mask, read.w & mask};
        const u32 odd[4] = {read.x & ~mask, read.y & ~mask, read.z & ~mask, read.w & ~mask};
        u32 at = first_of(chunk);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            if (j) at += step_to(chunk, j);
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) {
                u32 x[4];
                gather(x, shared, at + j * UNIT + plane * plane_bytes);
                multiply<VALUE>(all[plane][j & 1][0], even[j >> 1], odd[j >> 1], x[0], x[1]);
                multiply<VALUE>(all[plane][j & 1][1], even[j >> 1], odd[j >> 1], x[2], x[3]);
            }
        }
    }
    // Calls write(batch column, sum) in the lanes that hold a row's sums.
    template <class Write> __device__ __forceinline__ void finish(int lane, Write write) {
        const bool odd = lane & 4, second = lane & 16;
#pragma unroll
        for (int plane = 0; plane < PLANES; plane++)
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float(&s)[2][2][4] = all[plane];
                float sum = odd ? (second ? s[1][1][i] : s[1][0][i]) : (second ? s[0][1][i] : s[0][0][i]);
#pragma unroll
                for (int by = 4; by < LANES; by *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
                const int column = 8 * plane + 2 * (lane & 3) + i;
                if (lane % LANES < 4 && column < COLUMNS) write(column, sum);
            }
    }
};
#else
struct Sums {
    float all[COLUMNS];
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < COLUMNS; i++) all[i] = 0.f;
    }
    __device__ __forceinline__ void add(const Chunk& chunk, const unsigned char* shared, u32 plane_bytes, int) {
        u32 at = first_of(chunk);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            if (j) at += step_to(chunk, j);
            const uint4& quad = chunk.values[QUADS == 2 ? j / 4 : 0];
            const int place = QUADS == 2 ? j % 4 : j / 2;
            const u32 bits = place == 0 ? quad.x : place == 1 ? quad.y : place == 2 ? quad.z : quad.w;
            const float value = QUADS == 2 ? __uint_as_float(bits) : VALUE::load((Stored)(j & 1 ? bits >> 16 : bits & 0xffff));
#pragma unroll
            for (int plane = 0; plane < PLANES; plane++) {
                const unsigned char* x = shared + at + j * UNIT + plane * plane_bytes;
                float four[4] = {0.f, 0.f, 0.f, 0.f};
                if (COLUMNS == 1) four[0] = *(const float*)x;
                if (COLUMNS == 2) {
                    const float2 two = *(const float2*)x;
                    four[0] = two.x, four[1] = two.y;
                }
                if (COLUMNS >= 4) {
                    const float4 read = *(const float4*)x;
                    four[0] = read.x, four[1] = read.y, four[2] = read.z, four[3] = read.w;
                }
#pragma unroll
                for (int i = 4 * plane; i < 4 * plane + 4 && i < COLUMNS; i++) all[i] = __fmaf_rn(value, four[i % 4], all[i]);
            }
        }
    }
    template <class Write> __device__ __forceinline__ void finish(int lane, Write write) {
        static_assert(COLUMNS <= LANES, "a lane ends with one batch column");
        int by = LANES / 2;
#pragma unroll
        for (int held = COLUMNS / 2; held >= 1; held /= 2, by /= 2) {  // lanes halve the columns they hold
            const bool upper = lane & by;
#pragma unroll
            for (int i = 0; i < held; i++) {
                const float kept = upper ? all[i + held] : all[i], given = upper ? all[i] : all[i + held];
                all[i] = kept + __shfl_xor_sync(0xffffffffu, given, by);
            }
        }
        for (; by; by /= 2) all[0] += __shfl_xor_sync(0xffffffffu, all[0], by);
        if (lane % (LANES / COLUMNS) == 0) write(lane % LANES / (LANES / COLUMNS), all[0]);
    }
};
#endif
