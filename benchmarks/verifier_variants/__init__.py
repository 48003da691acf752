"""The parts of `benchmarks/verifier_rates.py`: golds, and programs that write them another way or change them."""
