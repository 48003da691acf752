"""The embedded demo: a small world BUILT to show diversity collapse (`world.py` says how), and its tiny base model."""
