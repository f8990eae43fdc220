// Cross-entropy of logits [classes, batch] against labels [batch], and its slope [classes, batch]: means over the samples whose
// label is not left_out, whose own slope is 0. A thread has a sample; `parts` [blocks] add up to the loss. A label that is no
// class makes its sample NaN, and so the loss; where all are left out the loss is 0 / 0, and the slope 0.
// How many are not left out stands in `counted`; where that is null, each block counts them itself.
typedef NUMBER::Stored Stored;

extern "C" __global__ void __launch_bounds__(THREADS) cross_entropy(
    const Stored* __restrict__ logits, const long long* __restrict__ labels, const int* __restrict__ counted,
    Stored* __restrict__ slope, float* __restrict__ parts, int classes, int batch, int left_out) {
    DYNAMIC_SHARED(shared);  // of each warp: labels that are not left out, its loss
    int* counts = (int*)shared;
    float* sums = (float*)(counts + THREADS / 32);
    const int sample = blockIdx.x * THREADS + threadIdx.x;
    int kept = 0;
    if (counted) {
        kept = *counted;
    } else {
#pragma unroll 8
        for (int i = threadIdx.x; i < batch; i += THREADS) kept += labels[i] != left_out;
#pragma unroll
        for (int step = 16; step; step /= 2) kept += __shfl_xor_sync(0xffffffffu, kept, step);
        if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = kept;
        __syncthreads();
        kept = 0;
#pragma unroll
        for (int warp = 0; warp < THREADS / 32; warp++) kept += counts[warp];
    }
    float loss = 0.f;
    if (sample < batch) {
        const long long label = labels[sample];
        const bool known = 0 <= label && label < classes, is_counted = label != left_out;
        const Stored* own = logits + sample;
        float largest = NUMBER::load(own[0]), total = 0.f;
        for (int c = 1; c < classes; c++) largest = fmaxf(largest, NUMBER::load(own[(long long)c * batch]));
        for (int c = 0; c < classes; c++) total += expf(NUMBER::load(own[(long long)c * batch]) - largest);
        const float unknown = known || !is_counted ? 0.f : __uint_as_float(0x7fc00000u), each = is_counted ? 1.f / kept : 0.f;
        if (known) loss = logf(total) - (NUMBER::load(own[label * batch]) - largest);
        loss += unknown;
        for (int c = 0; c < classes; c++) {
            const float share = expf(NUMBER::load(own[(long long)c * batch]) - largest) / total;
            slope[(long long)c * batch + sample] = NUMBER::store((share - (c == label ? 1.f : 0.f) + unknown) * each);
        }
    }
#pragma unroll
    for (int step = 16; step; step /= 2) loss += __shfl_xor_sync(0xffffffffu, loss, step);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = loss;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0.f;
#pragma unroll
        for (int warp = 0; warp < THREADS / 32; warp++) sum += sums[warp];
        parts[blockIdx.x] = sum / kept;
    }
}
