"""verl on a CPU, for tests: VERL_USE_EXTERNAL_MODULES=verl_on_cpu VERL_PLATFORM=cpu.

Three of verl's own registries are used: of platforms, of engines (FSDP2 on gloo) and of rollout servers (one around a
transformers model). The one patch is of the backend's name: verl asks for "cpu:gloo,cpu:gloo", which torch refuses.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry


class _Device(types.ModuleType):
    """torch.cpu, with the questions that verl asks a device about its memory, all answered 0."""

    def __getattr__(self, name: str) -> Any:
        if hasattr(torch.cpu, name):
            return getattr(torch.cpu, name)
        if name in ("get_rng_state", "set_rng_state"):
            return getattr(torch, name)
        answers: dict[str, Any] = {"is_available": True, "mem_get_info": (0, 0), "get_device_name": "cpu"}
        known = ("empty_cache", "ipc_collect", "manual_seed", "manual_seed_all")
        if name in answers or name in known or "memory" in name:
            return lambda *_, **__: answers.get(name, 0)
        raise AttributeError(name)


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):
    """Everything that concerns a device does nothing."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _Device("verl_cpu_device")

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"  # verl hands it to Tensor.to, where a number would mean a GPU

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    manual_seed_all = manual_seed

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:
        return "GPU"  # of a kind that only Ray counts

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def cudart(self) -> None:
        return None

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield


def _server() -> Any:
    from verl_on_cpu.rollout import Replica

    return Replica


def _register() -> None:
    from verl.utils import distributed
    from verl.workers.engine import EngineRegistry, FSDPEngineWithLMHead
    from verl.workers.rollout.base import _ROLLOUT_REGISTRY
    from verl.workers.rollout.replica import RolloutReplicaRegistry

    initialize: Callable[..., Any] = distributed.initialize_global_process_group_ray
    distributed.initialize_global_process_group_ray = partial(initialize, backend="gloo")
    RolloutReplicaRegistry.register("hf", _server)
    _ROLLOUT_REGISTRY[("hf", "async")] = "verl_on_cpu.rollout.Adapter"  # as verl's guide to extensions does it
    EngineRegistry.register(model_type="language_model", backend="fsdp2", device="cpu")(FSDPEngineWithLMHead)


_register()
