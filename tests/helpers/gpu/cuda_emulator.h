// CUDA C++ on a CPU, for tests: one block at a time, from any on, forwards or backwards; each CUDA thread a fiber, in an order
// that changes at every barrier. A missing barrier is then seen, since another order of threads gives another result; so is
// shared memory read unwritten, which is poisoned with NaN before each block.
// It is read anew for each kernel, of which there are many: headers of C alone, for those of C++ take longer than a kernel.
#define EMULATED
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
extern "C" float expf(float), logf(float), fmaf(float, float, float), fmaxf(float, float), fminf(float, float);
#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __restrict__
#define __shared__ static
#define __align__(n) alignas(n)
#define __constant__ static
typedef unsigned int emu_u32;
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct dim3_ { int x = 0, y = 0, z = 0; };
static inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
static inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }
static inline float2 make_float2(float a, float b) { return {a, b}; }
static inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
static inline int2 make_int2(int a, int b) { return {a, b}; }
static inline int4 make_int4(int a, int b, int c, int d) { return {a, b, c, d}; }

struct Fiber { ucontext_t start; jmp_buf place; bool begun = false, done = false; };
struct Copy { void* to; const void* from; int group; };
struct Copies { Copy waiting[256]; int count, group; };  // of a thread, of groups that end one after the other
struct Barrier { int arrived = 0, generation = 0; };
static dim3_ threadIdx, blockIdx, blockDim, gridDim;
const int MOST_THREADS = 1024;
static Fiber emu_fibers[MOST_THREADS];
static Barrier emu_block, emu_warps[MOST_THREADS / 32];
static unsigned emu_lanes[MOST_THREADS];  // what the lanes of each warp exchange
static Copies emu_copies[MOST_THREADS];  // those not waited for yet
static jmp_buf emu_scheduler;
static int emu_current, emu_running;
alignas(128) static unsigned char emu_shared[232448];
#define DYNAMIC_SHARED(name) unsigned char* name = emu_shared

// Contexts are for the first step onto a stack alone: every switch between two of them asks the kernel for the signal mask.
__attribute__((noinline)) static void emu_yield() {
    if (!_setjmp(emu_fibers[emu_current].place)) _longjmp(emu_scheduler, 1);
}
__attribute__((noinline)) static void emu_resume(Fiber& fiber) {
    if (_setjmp(emu_scheduler)) return;
    if (fiber.begun) _longjmp(fiber.place, 1);
    fiber.begun = true;
    setcontext(&fiber.start);
}
static void emu_wait(Barrier& barrier, int expected) {
    int generation = barrier.generation;
    if (++barrier.arrived == expected) { barrier.arrived = 0; barrier.generation++; emu_yield(); return; }
    while (barrier.generation == generation) emu_yield();
}
static inline void __syncthreads() { emu_wait(emu_block, blockDim.x); }
static inline int emu_lane() { return emu_current & 31; }
static inline Barrier& emu_warp() { return emu_warps[emu_current >> 5]; }
static void emu_converge(unsigned mask) {
    if (mask == 0xffffffffu) { emu_wait(emu_warp(), 32); return; }
    // Halves, quarters and so on of a warp: a barrier of their own, numbered by their first lane and size.
    int first = __builtin_ctz(mask), count = __builtin_popcount(mask);
    static Barrier parts[MOST_THREADS][32];
    emu_wait(parts[(emu_current & ~31) + first][count - 1], count);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu) { emu_converge(mask); }
static inline void __threadfence() {}
static inline void __threadfence_block() {}
template <class T> static T emu_exchange(unsigned mask, T value, int source) {
    static_assert(sizeof(T) == 4, "lanes exchange 32 bits");
    unsigned* lanes = &emu_lanes[(emu_current >> 5) * 32];
    unsigned bits; memcpy(&bits, &value, 4); lanes[emu_lane()] = bits;
    emu_converge(mask); bits = lanes[source & 31]; emu_converge(mask);
    T result; memcpy(&result, &bits, 4); return result;
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int lane) { return emu_exchange(mask, value, lane); }
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int by) { return emu_exchange(mask, value, emu_lane() ^ by); }
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, int by) { int lane = emu_lane(); return emu_exchange(mask, value, lane >= by ? lane - by : lane); }
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, int by) { int lane = emu_lane(); return emu_exchange(mask, value, lane + by < 32 ? lane + by : lane); }
static inline unsigned __ballot_sync(unsigned mask, bool predicate) {
    unsigned* lanes = &emu_lanes[(emu_current >> 5) * 32];
    lanes[emu_lane()] = predicate; emu_converge(mask);
    unsigned result = 0;
    for (int lane = 0; lane < 32; lane++) if (mask >> lane & 1) result |= (unsigned)(lanes[lane] != 0) << lane;
    emu_converge(mask); return result;
}
static inline bool __any_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) != 0; }
static inline bool __all_sync(unsigned mask, bool predicate) { return __ballot_sync(mask, predicate) == mask; }
static inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    unsigned* lanes = &emu_lanes[(emu_current >> 5) * 32];
    lanes[emu_lane()] = value; emu_converge(mask);
    unsigned result = 0;
    for (int lane = 0; lane < 32; lane++) if (mask >> lane & 1 && lanes[lane] > result) result = lanes[lane];
    emu_converge(mask); return result;
}
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
static inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    uint64_t v = (uint64_t)b << 32 | a; unsigned r = 0;
    for (int i = 0; i < 4; i++) r |= (unsigned)(v >> (8 * (s >> (4 * i) & 7)) & 0xff) << (8 * i);
    return r;
}
template <class T> static inline T __ldg(const T* p) { return *p; }
template <class T> static inline T __ldcg(const T* p) { return *p; }
template <class T> static inline T __ldcs(const T* p) { return *p; }
template <class T> static inline void __stcs(T* p, T v) { *p = v; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
template <class T> static inline T atomicAdd(T* p, T v) { T old = *p; *p = old + v; return old; }
template <class T> static inline T atomicMax(T* p, T v) { T old = *p; if (v > old) *p = v; return old; }
static inline unsigned atomicInc(unsigned* p, unsigned most) { unsigned old = *p; *p = old >= most ? 0 : old + 1; return old; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
static inline void let_next_begin() {}
static inline void wait_for_previous() {}
// Copies happen as late as they may, when they are waited for: who waits for too little reads poison, or what was there before.
static inline void copy_async(void* to, const void* from) {
    if (((uintptr_t)to | (uintptr_t)from) & 15) { fprintf(stderr, "copy_async: not aligned to 16 bytes\n"); abort(); }
    Copies& own = emu_copies[emu_current];
    if (own.count == 256) { fprintf(stderr, "copy_async: more copies at a time than the emulator holds\n"); abort(); }
    own.waiting[own.count++] = {to, from, own.group};
}
static inline void copies_end_group() { emu_copies[emu_current].group++; }
template <int N> static inline void copies_wait() {
    Copies& own = emu_copies[emu_current];  // the last group of which has not ended
    int done = 0;
    while (done < own.count && own.waiting[done].group < own.group - N) {
        memcpy(own.waiting[done].to, own.waiting[done].from, 16);
        done++;
    }
    own.count -= done;
    memmove(own.waiting, own.waiting + done, own.count * sizeof(Copy));
}
static inline float half_to_float(unsigned bits) { _Float16 h; unsigned short s = (unsigned short)bits; memcpy(&h, &s, 2); return (float)h; }
static inline unsigned float_to_half(float value) { _Float16 h = (_Float16)value; unsigned short s; memcpy(&s, &h, 2); return s; }
static inline uint4 read_once(const uint4* from) { return *from; }
// ldmatrix x4, transposed: lane 8 m + i names row i of matrix m; a lane is given column lane / 4 of rows 2 (lane % 4) and + 1.
static inline void gather(unsigned (&out)[4], const unsigned char* shared, unsigned at) {
    if (at & 15) { fprintf(stderr, "gather: not aligned to 16 bytes\n"); abort(); }
    unsigned* lanes = &emu_lanes[(emu_current >> 5) * 32];
    lanes[emu_lane()] = at; emu_converge(0xffffffffu);
    for (int m = 0; m < 4; m++) {
        unsigned short pair[2];
        for (int i = 0; i < 2; i++) memcpy(&pair[i], shared + lanes[8 * m + emu_lane() % 4 * 2 + i] + emu_lane() / 4 * 2, 2);
        out[m] = pair[0] | (unsigned)pair[1] << 16;
    }
    emu_converge(0xffffffffu);
}
// The upper half of mma m16n8k16: sums 0 and 1 are of row lane / 4, `first` and `second` matrices of 8 by 8; the rest, poison.
template <class T> static inline void multiply(float (&sums)[4], unsigned even, unsigned odd, unsigned first, unsigned second) {
    static unsigned all[32][32][4];
    unsigned (*lanes)[4] = all[emu_current >> 5], *own = lanes[emu_lane()];
    own[0] = even; own[1] = odd; own[2] = first; own[3] = second;
    emu_converge(0xffffffffu);
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 16; k++) {
            unsigned value = lanes[emu_lane() / 4 * 4 + k % 8 / 2][k / 8];
            unsigned x = lanes[(emu_lane() % 4 * 2 + i) * 4 + k % 8 / 2][2 + k / 8];
            sums[i] += T::load((unsigned short)(value >> 16 * (k & 1))) * T::load((unsigned short)(x >> 16 * (k & 1)));
        }
    sums[2] = sums[3] = __builtin_nanf("");
    emu_converge(0xffffffffu);
}

// Calls a kernel with arguments by address, in every block and thread.
template <int...> struct Places {};
template <class... A> struct Caller {
    template <int... I> static void call(void (*kernel)(A...), void** arguments, Places<I...>) { kernel(*(A*)arguments[I]...); }
};
struct EmuCall { void (*body)(void*, void**); void* kernel; void** arguments; };
static EmuCall emu_call;
static void emu_entry() {
    for (;;) {  // once for each block
        emu_call.body(emu_call.kernel, emu_call.arguments);
        emu_fibers[emu_current].done = true; emu_running--;
        emu_yield();
    }
}
template <class... A> int emulate(void (*kernel)(A...), int gx, int gy, int block, int shared_bytes, void** arguments, unsigned seed) {
    const size_t stack = 256 * 1024;
    static char* stacks = (char*)malloc(stack * 1024);  // once, and only the pages that are touched
    gridDim.x = gx; gridDim.y = gy; blockDim.x = block; gridDim.z = blockDim.y = blockDim.z = 1;
    emu_call = {[](void* k, void** a) { Caller<A...>::call((void (*)(A...))k, a, Places<__integer_pack(sizeof...(A))...>{}); }, (void*)kernel, arguments};
    static int order[MOST_THREADS];
    for (int t = 0; t < block; t++) {
        emu_fibers[t].begun = false;
        ucontext_t& start = emu_fibers[t].start;
        getcontext(&start);
        start.uc_stack.ss_sp = stacks + stack * t;
        start.uc_stack.ss_size = stack;
        start.uc_link = nullptr;
        makecontext(&start, emu_entry, 0);
    }
    const long blocks = (long)gx * gy, start = seed % blocks;
    const bool forwards = seed >> 12 & 1;
    for (long number = 0; number < blocks; number++) {
        const long own = (start + (forwards ? number : blocks - number)) % blocks;
        blockIdx.x = (int)(own % gx); blockIdx.y = (int)(own / gx);
        memset(emu_shared, 0xff, sizeof emu_shared);
        memset(emu_warps, 0, sizeof emu_warps); memset(emu_lanes, 0, sizeof emu_lanes);
        emu_block = Barrier{}; emu_running = block;
        for (int t = 0; t < block; t++) { order[t] = t; emu_fibers[t].done = false; emu_copies[t].count = emu_copies[t].group = 0; }
        long rounds = 0; int held_up = -1;
        while (emu_running) {
            for (int i = block - 1; i > 0; i--) { seed = seed * 1664525u + 1013904223u; int j = (int)((seed >> 8) % (unsigned)(i + 1)); int k = order[i]; order[i] = order[j]; order[j] = k; }
            // A warp is held up for a while, now and then: it is no excuse for a missing barrier that all go on at one pace.
            if (rounds % 8 == 0) { seed = seed * 1664525u + 1013904223u; held_up = block > 32 ? (int)((seed >> 8) % (block / 16)) : -1; }
            for (int at = 0; at < block; at++) if (int t = order[at]; !emu_fibers[t].done && t / 32 != held_up) { emu_current = t; threadIdx.x = t; emu_resume(emu_fibers[t]); }
            if (++rounds > 50000000) return 2;  // threads that wait for one another for ever
        }
        size_t past = shared_bytes, left = sizeof emu_shared - past;  // all of it is poison if it is the same moved by one
        if (left && (emu_shared[past] != 0xff || memcmp(emu_shared + past, emu_shared + past + 1, left - 1))) { fprintf(stderr, "shared memory written past its %d bytes\n", shared_bytes); return 3; }
    }
    return 0;
}
