"""What one evaluation says: every metric of every prompt, and their summary with intervals. Pure: no file, no model."""
