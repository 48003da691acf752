"""Whether a model can be drawn from and trained, asked before anything is drawn."""

from __future__ import annotations

from dphrl.config.objective import ANCHOR_METHODS
from dphrl.config.root import Config
from dphrl.engines.trl.balancing_loss import check_balancing_loss
from dphrl.errors import ModelError
from dphrl.models.dropout import other_in_training
from dphrl.models.policy import Policy
from dphrl.sampling.one_policy import check_one_policy


def check_model(config: Config, policy: Policy) -> None:
    """Refuse a model that is not one policy, or whose balancing loss TRL cannot compute; loads its weights.

    Raises:
        ModelError, ConfigError: why.
    """
    check_balancing_loss(policy.model.config, config.train.trl.get("router_aux_loss_coef"))
    check_one_policy(policy)


def check_before_drawing(config: Config, policy: Policy) -> None:
    """As `check_model`, and for anchors whether training reads them as they will be scored; turns off its dropout.

    Raises:
        ModelError, ConfigError: why.
    """
    check_model(config, policy)
    if config.method in ANCHOR_METHODS and other_in_training(policy.model):
        raise ModelError(
            f"{type(policy.model).__name__} reads a text otherwise in training than when it is drawn from, with every "
            "dropout off (noise in a router or the like), so its anchors would pull it away from itself; use a "
            "method without anchors, or another model"
        )
