"""Attention over the paged KV cache, chosen once at start."""
