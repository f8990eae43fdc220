"""Kernels for CPUs of matrices whose non-zeros come in blocks."""
