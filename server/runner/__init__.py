"""Mechanism: turns a step plan into tensors, a forward pass and sampled tokens."""
