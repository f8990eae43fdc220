"""What the kernels for CPUs of CSR matrices are made of."""
