"""Policy: which request gets which tokens, blocks and slots in the next step. Never imports torch."""
