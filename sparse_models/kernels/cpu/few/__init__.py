"""Kernels for CPUs of few samples, over packed copies of weights that are kept beside a layer."""
