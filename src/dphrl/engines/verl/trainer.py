"""verl's three trainers with anchors in the actor's updates: `trainer.v1.trainer_mode=dph` and two others.

The only module that overrides methods of verl's trainers; `docs/verl.md` lists what it relies on, and
`tests/verl_real/test_hooks.py` compares that with the verl that is installed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from omegaconf import OmegaConf, open_dict
from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils.config import omega_conf_to_dataclass

from dphrl.anchors import AnchorStore, open_store
from dphrl.engines.common.anchor_term import AnchorSettings
from dphrl.engines.common.eta_control import EtaCourse
from dphrl.engines.verl import checks
from dphrl.engines.verl.anchor_scores import VerlForward, rescored
from dphrl.engines.verl.anchored_update import AnchoredUpdate, UpdatePlace
from dphrl.engines.verl.loss import dph_loss
from dphrl.engines.verl.reward import check_reward
from dphrl.engines.verl.saved_state import SavedState
from dphrl.engines.verl.settings import VerlSettings
from dphrl.engines.verl.verdicts import Verdicts, validation_shares
from dphrl.progress import shown


class DPHTrainer(PPOTrainer):  # type: ignore[misc]
    """What the three trainers share: L = verl's loss + eta * sum f(log u) / N over each optimiser step's anchors.

    Raises (all before a rollout is drawn):
        ConfigError, AnchorError: settings, anchors or a model that do not fit together.
    """

    mode: ClassVar[str]
    """The trainer mode of verl's that this one extends."""

    def __init__(self, config: Any) -> None:
        # verl chooses replay buffer, checkpoints and settings by this word; every word it does not know is an
        # asynchronous mode to it
        with open_dict(config):
            config.trainer.v1.trainer_mode = self.mode
        super().__init__(config)

    def _setup(self) -> None:
        self.dph = VerlSettings.of(OmegaConf.to_container(self.config.get("dph") or OmegaConf.create(), resolve=True))
        checks.check_settings(self.config)
        check_reward(self.config)
        self.dph_store = open_store(self.dph.anchors, None)
        super()._setup()
        ranks = self._dph_ranks()
        self.dph_settings = self._dph_anchor_settings(ranks)
        store = self._dph_anchors(ranks)
        state = SavedState.now(self.dph, self.dph_settings, store)
        saved = self._dph_saved(state)
        self.dph_state = state
        self.dph_eta = EtaCourse(self.dph.eta_settings())
        self.dph_eta.begin(self.global_steps, saved.eta if saved else None)
        actor = omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)
        self.actor_rollout_wg.set_loss_fn(partial(dph_loss, self.dph_settings, actor))
        self.dph_update = AnchoredUpdate(
            self.actor_rollout_wg.update_actor, store, self.dph_settings, ranks, self._dph_place
        )
        self.actor_rollout_wg.update_actor = self.dph_update
        self.dph_verdicts = Verdicts()

    def _init_tokenizer(self) -> None:
        super()._init_tokenizer()
        weights = self.dph.check_weights
        checks.check_policy(self.config, self.tokenizer, self.processor, self.dph_store, weights=weights)

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        with self.dph_verdicts.set_apart(batch, metrics):
            batch = super()._compute_advantage(batch, metrics)
        self.dph_verdicts.mask_unjudged(batch)
        return batch

    def _update_actor(self, batch: KVBatchMeta, metrics: dict[str, Any]) -> KVBatchMeta:
        steps = self.total_training_steps * self.parameter_sync_step
        self.dph_eta.begin_step(self._dph_updates(), steps)
        batch = super()._update_actor(batch, metrics)  # reaches self.dph_update
        stats = self.dph_update.stats
        assert stats is not None
        found = {name: value.item() for name, value in stats.metrics().items()}
        self.dph_eta.end_step(lambda: found["anchor/forward_kl"])
        metrics |= found | {"anchor/eta": self.dph_eta.now, "anchor/tokens": stats.tokens.item()}
        return batch

    def _val_metrics_update(
        self, data_sources: Any, sample_uids: Any, reward_extra_infos_dict: Any, *others: Any, **more: Any
    ) -> dict[str, float]:
        metrics: dict[str, float] = super()._val_metrics_update(
            data_sources, sample_uids, reward_extra_infos_dict, *others, **more
        )
        return metrics | validation_shares(data_sources, reward_extra_infos_dict)

    def _save_checkpoint(self) -> None:
        folder = Path(self.config.trainer.default_local_dir) / f"global_step_{self.global_steps}"
        self.dph_state.write(folder, self.dph_eta.next)  # before verl's, which then says that the checkpoint is whole
        super()._save_checkpoint()

    # -- before the first update ---------------------------------------------------------------------------------------

    def _dph_ranks(self) -> int:
        """Data-parallel ranks of the actor."""
        workers = self.actor_rollout_wg
        if "actor" not in workers._dispatch_info:
            workers._dispatch_info["actor"] = workers._query_dispatch_info("actor")
        ranks: int = max(workers._dispatch_info["actor"]) + 1
        return ranks

    def _dph_anchor_settings(self, ranks: int) -> AnchorSettings:
        actor = self.config.actor_rollout_ref.actor
        completions = actor.ppo_mini_batch_size * self.config.actor_rollout_ref.rollout.n
        unit = ranks * (1 if actor.use_dynamic_bsz else actor.ppo_micro_batch_size_per_gpu)
        return self.dph.anchor_settings(self.dph.anchors_beside(completions, unit))

    def _dph_anchors(self, ranks: int) -> AnchorStore:
        """The anchors that are trained on, compared with verl's own forward where the policy is still the initial."""
        rollout, actor = self.config.actor_rollout_ref.rollout, self.config.actor_rollout_ref.actor
        unit = ranks * (1 if actor.use_dynamic_bsz else rollout.log_prob_micro_batch_size_per_gpu)
        forward = VerlForward(self.actor_rollout_wg, unit, float(rollout.temperature))
        store, begun = self.dph_store, self.global_steps > 0
        precision = checks.forward_precision(actor)
        if self.dph.rescore:
            import verl

            how = {"verl": verl.__version__, "precision": precision, "strategy": str(actor.strategy)}
            folder = Path(self.config.trainer.default_local_dir) / "anchors"
            if not begun:
                print(f"dph: mean |log u| before rescoring: {forward.mean_abs_log_u(store):.3g} nats a token")
            with shown() as progress:
                store = rescored(store, forward, folder, how, progress, begun=begun)
        if not begun:
            found = forward.mean_abs_log_u(store)
            print(f"dph: mean |log u| of the anchors before the first step: {found:.3g} nats a token ({precision})")
            checks.check_first_log_u(found, precision, rescored=self.dph.rescore)
        return store

    def _dph_saved(self, now: SavedState) -> SavedState | None:
        """What the checkpoint that this training goes on from says of its anchors; None without one."""
        if not self.global_steps:
            return None
        trainer = self.config.trainer
        newest = Path(trainer.default_local_dir) / f"global_step_{self.global_steps}"
        return now.check(Path(trainer.resume_from_path) if trainer.resume_mode == "resume_path" else newest)

    # -- while training ------------------------------------------------------------------------------------------------

    def _dph_updates(self) -> int:
        """Actor updates before the one at hand, resumed or not."""
        updates: int = (self.global_steps - 1) * self.parameter_sync_step + self.local_trigger_step
        return updates

    def _dph_place(self) -> UpdatePlace:
        return UpdatePlace(self._dph_updates(), self.dph_eta.now)


@register_trainer("dph")
class DPHTrainerSync(DPHTrainer, PPOTrainerSync):  # type: ignore[misc]
    """verl's `sync` with anchors."""

    mode = "sync"


@register_trainer("dph_colocate_async")
class DPHTrainerColocateAsync(DPHTrainer, PPOTrainerColocateAsync):  # type: ignore[misc]
    """verl's `colocate_async` with anchors."""

    mode = "colocate_async"


@register_trainer("dph_separate_async")
class DPHTrainerSeparateAsync(DPHTrainer, PPOTrainerSeparateAsync):  # type: ignore[misc]
    """verl's `separate_async` with anchors."""

    mode = "separate_async"
