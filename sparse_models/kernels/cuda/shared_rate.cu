// What bounds a product of few registers' reuse: multiply-adds of 16 bytes that each lane loads from shared memory, and nothing
// else. Lanes load neighbouring pieces, which keeps all banks busy; sums go to `result` [threads of all blocks].
extern "C" __global__ void __launch_bounds__(512, 2) shared_rate(float* __restrict__ result, int rounds, int pieces) {
    DYNAMIC_SHARED(raw);
    float4* held = (float4*)raw;
    for (int i = threadIdx.x; i < pieces; i += blockDim.x) held[i] = make_float4(1.f, 1.f, 1.f, 1.f);
    __syncthreads();
    float4 sums[4];
#pragma unroll
    for (int i = 0; i < 4; i++) sums[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    int at = threadIdx.x;
    for (int round = 0; round < rounds; round++) {
#pragma unroll
        for (int i = 0; i < 16; i++) {
            const float4 piece = held[(at + 32 * i) & (pieces - 1)];
            float4& sum = sums[i % 4];
            sum.x += piece.x * 2.f, sum.y += piece.y * 2.f, sum.z += piece.z * 2.f, sum.w += piece.w * 2.f;
        }
        at += 32;
    }
    float total = 0.f;
#pragma unroll
    for (int i = 0; i < 4; i++) total += sums[i].x + sums[i].y + sums[i].z + sums[i].w;
    result[blockIdx.x * blockDim.x + threadIdx.x] = total;
}
