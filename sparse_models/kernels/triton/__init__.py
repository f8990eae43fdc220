"""Block-sparse products on a GPU's tensor cores, written in Triton: batch-major activations, values [blocks, size, size]."""
