"""Training engines; each is wiring around a framework, the mathematics lives in the pure core."""
