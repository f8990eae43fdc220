// values[order], both [count]: each thread has EACH of them on their way at once. It says at its start that the next kernel may
// begin, which then fills its shared memory meanwhile, and waits before it reads what this one writes.
typedef NUMBER::Stored Stored;

extern "C" __global__ void __launch_bounds__(THREADS) gathered(
    const Stored* __restrict__ values, const int* __restrict__ order, Stored* __restrict__ result, int count) {
    let_next_begin();
    const int first = blockIdx.x * (THREADS * EACH) + threadIdx.x;
    int places[EACH];
    Stored found[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) places[i] = first + i * THREADS < count ? order[first + i * THREADS] : -1;
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (places[i] >= 0) found[i] = values[places[i]];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (places[i] >= 0) result[first + i * THREADS] = found[i];
}
