"""verl's settings of the reward: our function, and the verifiers of the user's own that rows may name."""

from __future__ import annotations

from typing import Any

from dphrl.config.root import Config
from dphrl.engines.verl import REWARD

FUNCTIONS = "reward.custom_reward_function.reward_kwargs.functions"


def reward_settings(config: Config) -> dict[str, Any]:
    """The settings, by verl's names."""
    named = (task.verifier for task in (config.task, *config.eval_tasks.values()))
    own = sorted({spec for spec in named if spec and ":" in spec})
    return {"reward.custom_reward_function.path": REWARD, **({f"+{FUNCTIONS}": own} if own else {})}
