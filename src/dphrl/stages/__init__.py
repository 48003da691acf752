"""The stages: each a pure step from files to files in a run directory, each resumable."""
