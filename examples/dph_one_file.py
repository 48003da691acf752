"""DPH-RL in one file: reinforcement learning that keeps what the model could do before.

    python examples/dph_one_file.py

The method of arXiv:2509.07430 in plain PyTorch, to be read from the first draw to the last table. Only the model, the
prompts and the verifier come from dphrl: they are the small text-to-SQL world of its demo, built to show the effect.

Ends of names say the axes: P prompts, G completions of each, B completions, T tokens, V vocabulary. Logs are natural.
"""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import comb
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from dphrl.demo.task import load_demo_task, model_folder

PRESAMPLES, THRESHOLD = 8, 6  # draws of each prompt before training; with 6 right ones a prompt is near-perfect
PROMPTS, GROUP, UPDATES = 8, 8, 2  # prompts of a generation, completions of each, optimiser steps on all of them
ANCHORS, ETA = 32, 0.2  # anchors beside each optimiser step, and the weight of their penalty
CLIP_LOW, CLIP_HIGH = 0.2, 0.28  # a ratio pi / pi_old outside 0.8 to 1.28 earns nothing more
LOG_U_CAP = 5.0  # nats; from here on the penalty is a straight line, so that no single token blows a step up
LEARNING_RATE, MAX_NEW_TOKENS = 1e-3, 40

TASK = load_demo_task("in_domain", "train")
TOKENIZER = AutoTokenizer.from_pretrained(model_folder())


class Completion(NamedTuple):
    """What the policy wrote for a prompt, and what the verifier said of it."""

    prompt_ids: list[int]
    ids: list[int]  # with the end token, unless it was cut at MAX_NEW_TOKENS
    right: bool


@torch.no_grad()
def draw(model: Any, prompts: Sequence[Any], n: int) -> list[list[Completion]]:
    """n judged completions of each prompt, drawn from the model as it stands."""
    if len(prompts) > 32:  # as many as fit into memory at once
        return draw(model, prompts[:32], n) + draw(model, prompts[32:], n)
    prompts = [p for p in prompts for _ in range(n)]
    texts = [p.prompt for p in prompts]
    padded = TOKENIZER(texts, padding=True, padding_side="left", return_tensors="pt")  # new tokens join at right
    both_BT = model.generate(**padded, do_sample=True, top_k=0, max_new_tokens=MAX_NEW_TOKENS)
    new_BT = both_BT[:, padded["input_ids"].shape[1] :]
    answers = TOKENIZER.batch_decode(new_BT, skip_special_tokens=True)
    end = TOKENIZER.eos_token_id
    new = [ids[: ids.index(end) + 1] if end in ids else ids for ids in new_BT.tolist()]
    verdicts = TASK.verify([{**p.columns, "completion": text} for p, text in zip(prompts, answers, strict=True)])
    # No reward is not reward 0: the verifier itself failed. dphrl leaves such completions out; this world has none.
    assert all(v.reward is not None for v in verdicts)
    rows = [Completion(p, c, v.correct) for p, c, v in zip(TOKENIZER(texts)["input_ids"], new, verdicts, strict=True)]
    return [rows[i : i + n] for i in range(0, len(rows), n)]


@dataclass(frozen=True)
class Rows:
    """Completions as tensors. They are padded on the right, where no token looks, so no attention mask is needed."""

    ids_BT: Tensor  # prompt, completion, padding
    mask_BT: Tensor  # True where the next token is one of the completion: the model predicts it there
    drawn_logp_BT: Tensor  # ln of the policy that drew the token: pi_old for rollouts, pi_ref for anchors
    advantage_B: Tensor  # how much better than its group a rollout was; anchors have none

    def __getitem__(self, index_B: Any) -> Rows:
        return Rows(self.ids_BT[index_B], self.mask_BT[index_B], self.drawn_logp_BT[index_B], self.advantage_B[index_B])


@torch.no_grad()
def rows_of(model: Any, completions: Sequence[Completion], advantage_B: Tensor) -> Rows:
    """The completions as tensors, scored by the model that drew them."""
    ids_BT = pad_sequence([torch.tensor([*c.prompt_ids, *c.ids]) for c in completions], batch_first=True)
    predicts = [[False] * (len(c.prompt_ids) - 1) + [True] * len(c.ids) for c in completions]
    mask_BT = pad_sequence([torch.tensor(row) for row in predicts], batch_first=True)
    return Rows(ids_BT, mask_BT, logps(model, ids_BT, mask_BT), advantage_B)


def logps(model: Any, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """ln pi(token | what stands before it) of the completions' tokens; 0 at prompts and padding."""
    logp_BTV = model(ids_BT).logits[:, :-1].log_softmax(-1)
    logp_BT = logp_BTV.gather(-1, ids_BT[:, 1:, None]).squeeze(-1)
    return torch.where(mask_BT, logp_BT, 0.0)


def split(model: Any, prompts: Sequence[Any]) -> tuple[list[Any], list[Completion]]:
    """Stage 1: the prompts to explore, and the anchors, all drawn from the initial policy.

    A near-perfect prompt was chosen because its draws were right, so these draws flatter the policy. One more draw
    decides, which chose nothing: right and finished, it is the anchor; otherwise the prompt goes back to exploration.
    """
    near_perfect, exploration, anchors = [], [], []
    for prompt, group in zip(prompts, draw(model, prompts, PRESAMPLES), strict=True):
        (near_perfect if sum(c.right for c in group) >= THRESHOLD else exploration).append(prompt)
    for prompt, (extra,) in zip(near_perfect, draw(model, near_perfect, 1), strict=True):
        if extra.right and extra.ids[-1] == TOKENIZER.eos_token_id:
            anchors.append(extra)
        else:
            exploration.append(prompt)
    return exploration, anchors


def forward_kl(log_u_BT: Tensor) -> Tensor:
    """f(u) = u - 1 - ln u, whose mean under pi_ref is KL(pi_ref || pi); beyond LOG_U_CAP its tangent."""
    near_BT = log_u_BT.clamp(max=LOG_U_CAP)
    tangent_BT = (near_BT.exp() - 1).detach() * (log_u_BT - near_BT)  # df / d ln u = u - 1
    return near_BT.exp() - 1 - near_BT + tangent_BT


def step_loss(model: Any, rollouts: Rows, rollout_tokens: float, anchors: Rows | None, eta: float) -> Tensor:
    """L = L_exp + eta * sum f(ln u) / N, the loss of one optimiser step.

    L_exp = -sum min(r A, clip(r) A) / rollout_tokens,  r = pi / pi_old   (PPO's clipped objective, mean over tokens)
    u = pi / pi_ref of the anchors' N tokens                              (pulls every token back that pi forgets)
    """
    logp_BT = logps(model, rollouts.ids_BT, rollouts.mask_BT)
    ratio_BT = (logp_BT - rollouts.drawn_logp_BT).exp()
    clipped_BT = ratio_BT.clamp(1 - CLIP_LOW, 1 + CLIP_HIGH)
    advantage_B1 = rollouts.advantage_B[:, None]
    gain_BT = torch.minimum(ratio_BT * advantage_B1, clipped_BT * advantage_B1)
    exploration = -gain_BT[rollouts.mask_BT].sum() / rollout_tokens
    if anchors is None:
        return exploration
    log_u_BT = logps(model, anchors.ids_BT, anchors.mask_BT) - anchors.drawn_logp_BT  # 0 at padding, and f(1) = 0
    return exploration + eta * forward_kl(log_u_BT).sum() / anchors.mask_BT.sum()


def advantages(reward_PG: Tensor) -> Tensor:
    """(r - mean) / deviation of a prompt's group: a prompt that is always right, or always wrong, teaches nothing."""
    return (reward_PG - reward_PG.mean(1, keepdim=True)) / (reward_PG.std(1, keepdim=True) + 1e-4)


def train(model: Any, prompts: Sequence[Any], anchors: Rows | None, steps: int, seed: int) -> Any:
    """Stage 2: a trained copy of the model. Without anchors it is GRPO."""
    model, rng = copy.deepcopy(model), random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / (steps * UPDATES))
    prompt_stream, anchor_stream = shuffled(prompts, rng), shuffled(range(len(anchors.ids_BT) if anchors else 0), rng)
    for _ in range(steps):
        groups = draw(model, list(islice(prompt_stream, PROMPTS)), GROUP)
        reward_PG = torch.tensor([[float(c.right) for c in group] for group in groups])
        rollouts = rows_of(model, [c for group in groups for c in group], advantages(reward_PG).flatten())
        for part_B in torch.randperm(PROMPTS * GROUP).chunk(UPDATES):
            chosen = None if anchors is None else anchors[list(islice(anchor_stream, ANCHORS))]
            loss = step_loss(model, rollouts[part_B], int(rollouts.mask_BT.sum()) / UPDATES, chosen, ETA)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model


def shuffled(items: Sequence[Any], rng: random.Random) -> Iterator[Any]:
    """Each item once, in random order, then each once again, without end."""
    while True:
        yield from rng.sample(items, len(items))


def measure(model: Any, prompts: Sequence[Any], n: int) -> list[float]:
    """Pass@1 (mean@n), Pass@8, Pass@n in percent: 1 - C(n - c, k) / C(n, k) for c right of n, mean over prompts."""
    right = [sum(c.right for c in group) for group in draw(model, prompts, n)]
    return [100 * sum(1 - comb(n - c, k) / comb(n, k) for c in right) / len(right) for k in (1, 8, n)]


def main(steps: int, n: int, seed: int) -> None:
    """Draw, split, score, train, measure."""
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()
    exploration, completions = split(base, TASK.prompts)
    anchors = rows_of(base, completions, torch.zeros(len(completions)))  # ln pi_ref is kept; pi_ref is not needed again
    print(f"{len(TASK.prompts)} prompts: {len(completions)} with an anchor, {len(exploration)} to explore")
    grpo = train(base, TASK.prompts, None, steps, seed)
    dph_f = train(base, exploration, anchors, steps, seed)
    for name in ("in_domain", "cross_domain"):
        prompts = load_demo_task(name, "eval").prompts
        print(f"\n{name:14}{f'mean@{n}':>9}{'Pass@8':>9}{f'Pass@{n}':>9}   ({len(prompts)} prompts, %)")
        for label, policy in (("base", base), ("GRPO", grpo), ("DPH-F", dph_f)):
            print(f"{label:14}" + "".join(f"{value:9.1f}" for value in measure(policy, prompts, n)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60, help="generations")
    parser.add_argument("--n", type=int, default=64, help="completions of each prompt that is measured, at least 8")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
