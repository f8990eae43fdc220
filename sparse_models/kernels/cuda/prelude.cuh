// What every kernel here begins with. Compiled by NVRTC for a card; with EMULATED, by a C++ compiler for tests without one.
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;
#ifndef EMULATED
#define DYNAMIC_SHARED(name) extern __shared__ __align__(16) unsigned char name[]
// An overlapped launch: let the next kernel begin; wait for all that the kernel before has written.
__device__ __forceinline__ void let_next_begin() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Copies 16 bytes from global to shared memory, both aligned to 16, without a register between.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void copies_end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> __device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }
__device__ __forceinline__ float half_to_float(u32 bits) {
    float result;
    asm("{.reg .b16 t; cvt.u16.u32 t, %1; cvt.f32.f16 %0, t;}" : "=f"(result) : "r"(bits));
    return result;
}
__device__ __forceinline__ u32 float_to_half(float value) {
    u32 bits;
    asm("{.reg .b16 t; cvt.rn.f16.f32 t, %1; cvt.u32.u16 %0, t;}" : "=r"(bits) : "f"(value));
    return bits;
}
#endif
__device__ __forceinline__ float bfloat_to_float(u32 bits) { return __uint_as_float(bits << 16); }
__device__ __forceinline__ u32 float_to_bfloat(float value) {
    u32 bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0u;  // NaN stays one
    return (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
}
// The number types: what is stored, its bytes, and the way to float32 and back.
struct Float32 {
    typedef float Stored;
    static __device__ __forceinline__ float load(Stored value) { return value; }
    static __device__ __forceinline__ Stored store(float value) { return value; }
};
struct Float16 {
    typedef u16 Stored;
    static __device__ __forceinline__ float load(Stored bits) { return half_to_float(bits); }
    static __device__ __forceinline__ Stored store(float value) { return (u16)float_to_half(value); }
};
struct Bfloat16 {
    typedef u16 Stored;
    static __device__ __forceinline__ float load(Stored bits) { return bfloat_to_float(bits); }
    static __device__ __forceinline__ Stored store(float value) { return (u16)float_to_bfloat(value); }
};
