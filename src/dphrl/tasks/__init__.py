"""A task = prompts + verifier + what makes two correct completions the same solution.

Ready tasks fill in what a config leaves out (`ready.py`); any other file or data set becomes a task through
`TaskConfig` alone: nothing needs to be programmed for it.
"""

from dphrl.tasks.load import load_task
from dphrl.tasks.ready import READY, ready_task, resolved

__all__ = ["READY", "load_task", "ready_task", "resolved"]
