"""CUDA graphs: what the host launches once and a GPU does again and again."""
