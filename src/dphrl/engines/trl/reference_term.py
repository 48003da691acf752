"""Fresh completions against a reference model beside the policy: the KL of method rkl in the loss or as a reward, and
the half of dph's definition form that anchors cannot give."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from dphrl.engines.trl.rollouts import Rollouts
from dphrl.method.definition import definition
from dphrl.method.kl_estimators import KLEstimator, k1, k2


class OnlineReference(Rollouts):
    """Adds what TRL's own KL term does not: other terms in the loss, and k1 as a reward. TRL brings the reference."""

    beta: float
    """TRL's weight of the KL; anything but 0 makes it load the reference model and score each generation with it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._logps: Tensor | None = None  # of the micro-batch's completions, with their graph
        self._fresh = self._fresh_term()

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        with self._tokenwise_kl_off():
            loss: Tensor = super().compute_loss(model, inputs, *args, **kwargs)
        if self._fresh is not None:
            weight = self.beta if self.args.method == "rkl" else self._eta.eta
            penalty = self._fresh_penalty(self._fresh, inputs)
            loss = loss if weight == 0 else loss + weight * penalty
        self._logps = None
        return loss

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        if self.model.training and self.args.method == "rkl" and self.args.kl_estimator == "k1_reward":
            batch["advantages"] = batch["advantages"] + self._k1_reward(batch)
        return batch

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        output: tuple[Any, ...] = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        self._logps = output[0]
        return output

    @contextmanager
    def _tokenwise_kl_off(self) -> Iterator[None]:
        """TRL adds k3 whenever beta is not 0; for every other term it must only bring the reference logps."""
        beta = self.beta
        if self.args.method != "rkl" or self.args.kl_estimator not in ("k3", "k3_corrected"):
            self.beta = 0.0
        try:
            yield
        finally:
            self.beta = beta

    def _fresh_term(self) -> KLEstimator | None:
        """(logp, ref_logp) -> term of our own in the loss, if the method has one."""
        if self.args.method == "rkl":
            return k2 if self.args.kl_estimator == "k2" else None
        fresh = definition(self.args.divergence).fresh if self.args.form == "definition" else None
        return None if fresh is None else lambda logp, ref_logp: fresh(logp - ref_logp)

    def _fresh_penalty(self, term: KLEstimator, inputs: dict[str, Any]) -> Tensor:
        """Token-mean of the term over the optimiser step, with TRL's own token-mean denominator."""
        assert self._logps is not None
        mask = inputs["completion_mask"]
        terms = term(self._logps, inputs["ref_per_token_logps"]) * mask
        name = "kl" if self.args.method == "rkl" else "fresh/penalty"
        self._metrics["train"][name].append((terms.detach().sum() / mask.sum().clamp(min=1)).item())
        share_of_generation = self.current_gradient_accumulation_steps / self.args.steps_per_generation
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes * share_of_generation
        mean: Tensor = terms.sum() / tokens
        return mean

    def _k1_reward(self, batch: dict[str, Any]) -> Tensor:
        """-beta * (sum of k1 over a completion), centred in its group: a reward that no group deviation scales.

        Divided by the deviation it would be blown up to unit size wherever all completions are right.
        """
        kl = (k1(self._old_logps(batch), batch["ref_per_token_logps"]) * batch["completion_mask"]).sum(1)
        gathered = self.accelerator.gather(kl)
        self._metrics["train"]["kl"].append((gathered.mean()).item())
        centred = gathered - gathered.view(-1, self.num_generations).mean(1).repeat_interleave(self.num_generations)
        return -self.beta * self._local(centred, len(kl))
