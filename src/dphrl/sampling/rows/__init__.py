"""Drawing with a model of transformers, the completions of a prompt side by side."""
