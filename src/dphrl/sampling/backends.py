"""The table of sampling backends, and the sampler that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from dphrl.config.root import Config
from dphrl.errors import SamplerError
from dphrl.models.policy import Policy, model_path
from dphrl.sampling.base import Sampler


@dataclass(frozen=True, slots=True)
class Backend:
    """How a sampler is made, and what it needs beside the packages that dphrl always installs."""

    make: Callable[[Config, Policy], Sampler]
    modules: tuple[str, ...] = ()
    install: str = ""
    note: str = ""
    """What else must be there, for `dphrl doctor`."""


def make_sampler(config: Config, policy: Policy) -> Sampler:
    """The sampler of `sampling.backend` for this policy; close it after the last draw.

    `vllm` releases the policy's weights first: engine and model are not in memory together unless the model is asked
    for before the sampler is closed.

    Raises:
        SamplerError: the backend is not installed, cannot start, or does not serve this policy.
    """
    name = config.sampling.backend
    absent = missing_modules(name)
    if absent:
        raise SamplerError(
            f"sampling.backend={name} needs {' and '.join(absent)}, not installed here; {BACKENDS[name].install}, "
            f"or set sampling.backend to {' or '.join(b for b in BACKENDS if not missing_modules(b))}"
        )
    return BACKENDS[name].make(config, policy)


def missing_modules(backend: str) -> tuple[str, ...]:
    """Modules that a backend needs and this installation lacks."""
    return tuple(m for m in BACKENDS[backend].modules if find_spec(m) is None)


def _transformers(config: Config, policy: Policy) -> Sampler:
    from dphrl.sampling.transformers_sampler import TransformersSampler

    return TransformersSampler(policy, config.sampling, config.seed)


def _vllm(config: Config, policy: Policy) -> Sampler:
    from dphrl.sampling.vllm_sampler import VllmSampler

    return VllmSampler(policy, config.sampling, config.seed, config.model)


def _openai(config: Config, policy: Policy) -> Sampler:
    from dphrl.sampling.openai_sampler import OpenAISampler

    trained = policy.source != model_path(config.model)
    return OpenAISampler(policy, config.sampling, config.seed, trained=trained)


BACKENDS: dict[str, Backend] = {
    "transformers": Backend(_transformers),
    "vllm": Backend(
        _vllm,
        ("vllm",),
        "pip install 'dphrl[vllm]' (Linux with a GPU; `dphrl docs samplers` for a CPU)",
        ", on the hardware that this build of vLLM is for",
    ),
    "openai": Backend(
        _openai,
        ("httpx2",),
        "pip install 'dphrl[openai]'",
        ", with a server that takes and gives token ids (`dphrl docs samplers`)",
    ),
}
