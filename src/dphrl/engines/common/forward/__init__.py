"""One forward for rollouts and anchors: padded rows or distinct tokens."""
