"""Policy: who gets which tokens, blocks and slots in the next step. Never imports torch."""
