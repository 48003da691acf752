"""`dphrl` under FSDP2 on gloo: accelerate reads the launch's FSDP settings only where there are GPUs.

accelerate launch --config_file CPU_COPY_OF_fsdp2.yaml tests/support/fsdp2_on_cpu.py train --config FILE
"""

from __future__ import annotations

import sys
from typing import Any

from accelerate import DistributedType, PartialState
from accelerate.state import AcceleratorState


def honour_fsdp() -> None:
    """Let accelerate do on CPUs what it does on GPUs when the launch asks for FSDP."""
    whole = AcceleratorState.__init__

    def init(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        whole(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin
            if self.mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self.mixed_precision)

    AcceleratorState.__init__ = init  # type: ignore[method-assign]


if __name__ == "__main__":
    honour_fsdp()
    from dphrl.cli.main import main

    sys.exit(main(sys.argv[1:]))
