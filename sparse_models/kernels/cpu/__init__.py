"""Kernels of our own for CPUs: LLVM's instructions, compiled for the machine at hand, on torch's own threads."""
