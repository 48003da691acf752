"""What is refused before verl trains with anchors, and whether the anchors are of the model that it loads."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dphrl.anchors import AnchorStore, StoreWriter, open_store
from dphrl.config.load import build_config
from dphrl.engines.verl import checks
from dphrl.engines.verl.prompt_ids import TEXT_TEMPLATE
from dphrl.engines.verl.saved_state import FILE, SavedState
from dphrl.errors import AnchorError, ConfigError
from dphrl.models.fingerprint import fingerprint
from dphrl.models.policy import load_policy
from dphrl.models.shipped import shipped_model
from dphrl.types import Anchor

MODEL = str(shipped_model("demo"))


class Node(dict[str, Any]):
    """A mapping with attributes, as verl's config is one."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def node(value: Any) -> Any:
    return Node({key: node(item) for key, item in value.items()}) if isinstance(value, dict) else value


def config(**changed: Any) -> Any:
    """verl's config, as far as it is read; keys are dotted."""
    whole = node(
        {
            "distillation": {"enabled": False},
            "algorithm": {"rollout_correction": {"bypass_mode": False}},
            "data": {"apply_chat_template_kwargs": {}},
            "actor_rollout_ref": {
                "actor": {
                    "strategy": "fsdp2",
                    "shuffle": False,
                    "use_dynamic_bsz": False,
                    "use_prefix_grouper": False,
                    "loss_agg_mode": "token-mean",
                    "loss_scale_factor": None,
                    "policy_loss": {"loss_mode": "vanilla"},
                    "fsdp_config": {},
                    "megatron": {"router_replay": {"mode": "disabled"}},
                },
                "model": {"path": MODEL, "tokenizer_path": None},
                "rollout": {"temperature": 1.0},
            },
        }
    )
    for dotted, value in changed.items():
        *parents, leaf = dotted.split(".")
        place = whole
        for name in parents:
            place = place[name]
        place[leaf] = value
    return whole


def test_verls_defaults_are_fine() -> None:
    checks.check_settings(config())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"distillation": node({"enabled": True})}, r"set distillation\.enabled=False"),
        ({"actor_rollout_ref.actor.shuffle": True}, "mini-batches without anchors; set it to False"),
        ({"actor_rollout_ref.actor.use_prefix_grouper": True}, "use_prefix_grouper=True"),
        ({"algorithm.rollout_correction": node({"bypass_mode": True})}, "bypass_mode=True needs a token"),
        ({"actor_rollout_ref.actor.policy_loss": node({"loss_mode": "bypass_mode"})}, "set it to False"),
    ],
)
def test_what_does_not_go_with_anchors_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checks.check_settings(config(**changed))


def test_router_replay_is_looked_up_where_the_strategy_has_it() -> None:
    replay = node({"router_replay": {"mode": "R3"}})
    checks.check_settings(config(**{"actor_rollout_ref.actor.megatron": replay}))
    changed = {"actor_rollout_ref.actor.megatron": replay, "actor_rollout_ref.actor.strategy": "megatron"}
    with pytest.raises(ConfigError, match=r"actor\.megatron\.router_replay\.mode=disabled"):
        checks.check_settings(config(**changed))


def test_a_divisor_that_anchors_could_change_is_refused() -> None:
    mode = {"actor_rollout_ref.actor.loss_agg_mode": "seq-mean-token-sum-norm"}
    dynamic = mode | {"actor_rollout_ref.actor.use_dynamic_bsz": True}
    checks.check_settings(config(**mode))
    checks.check_settings(config(**dynamic, **{"actor_rollout_ref.actor.loss_scale_factor": 512}))
    with pytest.raises(ConfigError, match="loss_scale_factor"):
        checks.check_settings(config(**dynamic))


@pytest.fixture
def store(tmp_path: Path) -> AnchorStore:
    """Two anchors of the shipped model."""
    settings = build_config({"model": {"path": "demo", "device": "cpu"}})
    writer = StoreWriter(tmp_path / "anchors", fingerprint(load_policy(settings), settings), {"seed": 0})
    writer.add([Anchor(name, (5, 6), (7, 2), (-0.5, -0.1)) for name in "ab"])
    writer.seal()
    return open_store(tmp_path / "anchors", None)


@pytest.fixture(autouse=True)
def verls_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """verl's function that fetches a model from a remote store; a folder is what it is."""
    module = ModuleType("verl.utils.fs")
    module.copy_to_local = lambda path: path  # type: ignore[attr-defined]
    for name in ("verl", "verl.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "verl.utils.fs", module)


def tokenizer(template: str | None = TEXT_TEMPLATE) -> Any:
    loaded = load_policy(build_config({"model": {"path": "demo", "device": "cpu"}})).tokenizer
    loaded.chat_template = template
    return loaded


def test_the_model_that_drew_the_anchors_passes(store: AnchorStore) -> None:
    checks.check_policy(config(), tokenizer(), None, store, weights=True)


@pytest.mark.parametrize(
    ("changed", "template", "message"),
    [
        (
            {"actor_rollout_ref.rollout": node({"temperature": 0.7})},
            TEXT_TEMPLATE,
            "temperature: anchors '1.0'",
        ),
        ({}, "{{ messages }}", "another chat_template"),
        ({"data": node({"apply_chat_template_kwargs": {"enable_thinking": False}})}, None, "another chat_template"),
    ],
)
def test_another_policy_is_named(store: AnchorStore, changed: Any, template: str | None, message: str) -> None:
    with pytest.raises(AnchorError, match=message) as raised:
        checks.check_policy(config(**changed), tokenizer(template), None, store, weights=False)
    assert f"verl trains {MODEL}" in str(raised.value)


def test_other_weights_are_found_where_they_are_looked_at(store: AnchorStore, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(MODEL, tmp_path / "other")
    weights = load_file(tmp_path / "other" / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] += 1e-3
    save_file(weights, tmp_path / "other" / "model.safetensors", metadata={"format": "pt"})
    other = config(**{"actor_rollout_ref.model": node({"path": str(tmp_path / "other"), "tokenizer_path": None})})
    checks.check_policy(other, tokenizer(), None, store, weights=False)
    with pytest.raises(AnchorError, match="made with another weights"):
        checks.check_policy(other, tokenizer(), None, store, weights=True)


def test_a_model_with_a_processor_is_refused(store: AnchorStore) -> None:
    with pytest.raises(ConfigError, match="trains text models"):
        checks.check_policy(config(), tokenizer(), object(), store, weights=False)


def test_log_u_before_the_first_step_is_held_against_the_precision_of_verls_forward() -> None:
    actor = config().actor_rollout_ref.actor
    assert checks.forward_precision(actor) == "bfloat16"
    actor["fsdp_config"] = node({"mixed_precision": {"param_dtype": "fp32"}})
    assert checks.forward_precision(actor) == "float32"
    actor["strategy"] = "megatron"
    assert checks.forward_precision(actor) == "bfloat16"
    checks.check_first_log_u(0.01, "bfloat16", rescored=False)
    with pytest.raises(AnchorError, match=r"0\.01 nats, more than 0\.001: .*\+dph\.rescore=true"):
        checks.check_first_log_u(0.01, "float32", rescored=False)
    with pytest.raises(AnchorError, match="does not repeat itself"):
        checks.check_first_log_u(float("nan"), "bfloat16", rescored=True)


STATE = SavedState("d1", 0, 8, 1, 0.2)


def test_a_checkpoint_holds_the_next_weight(tmp_path: Path) -> None:
    STATE.write(tmp_path / "global_step_2", 0.25)
    assert STATE.check(tmp_path / "global_step_2") == replace(STATE, eta=0.25)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "was not trained with anchors"),
        (lambda path: path.write_text("{"), "is damaged"),
        (lambda path: path.write_text('{"eta": 1}'), "is damaged"),
        (lambda path: replace(STATE, seed=3).write(path.parent, 0.1), "seed: 3 there, 0 now"),
        (lambda path: replace(STATE, anchors="d2").write(path.parent, 0.1), "anchors: 'd2' there, 'd1' now"),
    ],
)
def test_a_checkpoint_of_other_anchors_is_refused(tmp_path: Path, damage: Callable[[Path], Any], message: str) -> None:
    STATE.write(tmp_path, 0.2)
    damage(tmp_path / FILE)
    with pytest.raises(AnchorError, match=message):
        STATE.check(tmp_path)
