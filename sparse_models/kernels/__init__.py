"""Kernels of our own, compiled on the machine they run on, each beside its plain definition."""
