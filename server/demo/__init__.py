"""The small checkpoint that `serve` runs when no model is given."""
