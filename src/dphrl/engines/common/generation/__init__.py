"""A generation: drawn, rewarded, and cut into micro-batches."""
