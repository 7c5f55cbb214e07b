"""Kernels of our own in Triton: compiled on a GPU, interpreted in tests."""
