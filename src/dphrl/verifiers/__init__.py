"""Verdicts on completions. A verifier that fails says so (`gold_error`, `verifier_error`, no reward): never a silent 0.

    from dphrl.verifiers import math_reward, sql_reward             # reward functions for TRL
    from dphrl.verifiers import load_verifier
    verdicts = load_verifier("sql", {"mode": "bird"})([{"completion": ..., "gold": ..., "db": "shop.sqlite"}])

To add one, see `registry.py`. Nothing here imports torch; what may be hostile runs in worker processes (`workers/`).
"""

from dphrl.verifiers.registry import VERIFIERS, load_verifier
from dphrl.verifiers.trl_reward import math_reward, reward_function, sql_reward, task_reward

__all__ = ["VERIFIERS", "load_verifier", "math_reward", "reward_function", "sql_reward", "task_reward"]
