"""CUDA kernels of our own: C++ that NVRTC compiles for the card at hand, each beside what it means in plain PyTorch."""
