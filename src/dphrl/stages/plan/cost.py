"""A small cost model of a run: tokens -> floating-point operations -> hours, and bytes on one GPU.

Numbers and formulas alone; what they leave out and how far to trust them stands in docs/decisions/0017-cost-model.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dphrl.config.root import Config

GIB = 2**30
PEAK = 989e12
"""Dense bfloat16 operations a second of one NVIDIA H100 SXM (its data sheet); scale hours for another GPU."""
TRAINING_UTILISATION = 0.35
"""Share of `PEAK` that forward and backward reach; our assumption."""
DRAWING_UTILISATION: Mapping[str, float] = {"vllm": 0.05, "openai": 0.05, "transformers": 0.005}
"""Backend -> share of `PEAK` that drawing reaches, the wait for the longest completion included; our assumption."""
TYPICAL_SHARE = 0.25
"""Mean length of a completion as a share of the longest one allowed; our assumption, measure your own."""
FORWARD = 2
"""Operations a parameter and token: one multiplication, one addition."""
TRAINED = 6
"""Forward, and twice that backward."""
LAYER_BYTES = 17
"""Activations that one layer keeps for its backward pass, in numbers a token and hidden unit (arXiv:2205.05198, eq. 1
without the attention matrix, which fused attention never keeps: 34 bytes at 2 bytes a number)."""
DTYPE_BYTES: Mapping[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
MOMENTS = 2
"""Numbers a parameter that AdamW keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the model costs follow from; counts."""

    parameters: int
    layers: int
    hidden: int
    kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Tokens of one stage, all GPUs together."""

    read: float = 0.0
    """Prompt tokens that drawing reads."""
    drawn: float = 0.0
    scored: float = 0.0
    """Tokens that go forward only: old log-probabilities, a reference model's, the anchors' before training."""
    trained: float = 0.0
    """Tokens that go forward and backward, prompts and anchors among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one GPU while it trains."""

    states: float
    """Weights, gradients, AdamW."""
    reference: float
    """The reference model of rkl and of dph's definition form; 0 for other methods."""
    activations: float
    """Of one micro-batch of the longest sequences."""
    cache: float
    """Keys and values of this GPU's share of a generation, if all of it were drawn at once."""

    @property
    def training(self) -> float:
        """What must be there at the same time, vLLM aside."""
        return self.states + self.reference + self.activations


def _unsharded(b: int, gpus: int) -> float:
    return b + b + MOMENTS * b


def _fsdp2(b: int, gpus: int) -> float:
    return (4 + 4 + MOMENTS * 4) / gpus  # accelerate keeps the weights in float32 and computes in bfloat16


def _zero2(b: int, gpus: int) -> float:
    return b + (b + _master(b) + MOMENTS * 4) / gpus


def _zero3(b: int, gpus: int) -> float:
    return (b + b + _master(b) + MOMENTS * 4) / gpus


def _master(b: int) -> int:
    """DeepSpeed's float32 copy of shorter weights."""
    return 0 if b == DTYPE_BYTES["float32"] else 4


LAYOUTS: dict[str, Callable[[int, int], float]] = {
    "ddp": _unsharded,
    "deepspeed-zero2": _zero2,
    "deepspeed-zero3": _zero3,
    "fsdp2": _fsdp2,
}
"""File in recipes/accelerate -> (bytes a number of the weights, GPUs) -> bytes a parameter of weights, gradients and
AdamW on one GPU."""
SHARDS_WEIGHTS = ("deepspeed-zero3", "fsdp2")
"""Layouts that divide a reference model over the GPUs too."""


def drawing_hours(shape: Shape, tokens: Tokens, backend: str, gpus: int) -> float:
    """Hours of drawing: 2 operations a parameter and token, read or drawn."""
    operations = FORWARD * shape.parameters * (tokens.read + tokens.drawn)
    return operations / (gpus * PEAK * DRAWING_UTILISATION[backend]) / 3600


def training_hours(shape: Shape, tokens: Tokens, *, checkpointing: bool, gpus: int) -> float:
    """Hours of scoring and training: 2 and 6 operations a parameter and token, 8 where activations are made again."""
    trained = TRAINED + (FORWARD if checkpointing else 0)
    operations = shape.parameters * (FORWARD * tokens.scored + trained * tokens.trained)
    return operations / (gpus * PEAK * TRAINING_UTILISATION) / 3600


def memory(shape: Shape, config: Config, layout: str, *, gpus: int, sequence: int, micro: int) -> Memory:
    """Bytes on one GPU under one of `LAYOUTS`.

    Args:
        sequence: tokens of the longest prompt and the longest completion together.
        micro: sequences in one forward on one GPU.
    """
    b = DTYPE_BYTES[config.model.dtype]
    train = config.train
    a_layer = LAYER_BYTES * b * shape.hidden * sequence * micro
    kept = b * shape.hidden * sequence * micro * shape.layers + a_layer  # each layer's input, one layer made again
    rows = train.prompts_per_step * train.group_size / gpus
    shards = gpus if layout in SHARDS_WEIGHTS else 1
    return Memory(
        states=shape.parameters * LAYOUTS[layout](b, gpus),
        reference=shape.parameters * b / shards if config.loads_reference else 0.0,
        activations=kept if train.gradient_checkpointing else a_layer * shape.layers,
        cache=rows * cache_bytes(shape, b) * sequence,
    )


def cache_bytes(shape: Shape, number_bytes: int) -> int:
    """Bytes of keys and values of one token."""
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * number_bytes


def checkpoint_bytes(shape: Shape, config: Config) -> float:
    """Bytes on disk of a run's two checkpoints (weights and AdamW, float32 at most) and its final model."""
    return shape.parameters * (2 * (1 + MOMENTS) * 4 + DTYPE_BYTES[config.model.dtype])
