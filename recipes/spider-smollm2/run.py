"""SmolLM2-135M on Spider, from the model's download to the report. Ended early, the same command goes on.

Run: python recipes/spider-smollm2/run.py --spider ../shared/data/spider --out runs/spider-smollm2 --jobs 2

Tunes the base, pre-samples and measures it, then trains and measures each method from it. Everything lies under --out:
the base (`model`), the questions, `base` with pre-samples and anchors, a run a method and seed (`grpo-s0`), logs, and
`report` with tables and figures of all of them. The settings are in spider.yaml; options that this program does not
know go to dphrl: --train.steps 100.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
METHODS = {
    "grpo": "--method grpo",
    "dph_f": "--method dph",
    "dapo": "--method dapo",
    "rkl_k2": "--method rkl --objective.beta 0.1 --objective.kl_estimator k2",
    "rkl_k3": "--method rkl --objective.beta 0.1 --objective.kl_estimator k3",
    "dph_js": "--method dph --objective.divergence js --objective.eta 0.5",
    # Right presamples of every prompt as anchors, RL on all: near the limit on each of the demo's worlds.
    "dph_correct": "--method dph --objective.eta 0.5 --anchor.source correct --train.prompts all",
}
BASES = {"base": "", "base-correct": "--anchor.source correct"}
"""Folder of pre-samples and anchors -> options that it is made with; the first serves a method that names none."""


def base_of(options: str) -> str:
    """The base run of a method's options."""
    return next((name for name, made_with in BASES.items() if made_with and made_with in options), "base")


class Pipeline:
    """The commands of one folder; each is a process of its own with one thread, its words in OUT/logs."""

    def __init__(self, out: Path, jobs: int, more: list[str]) -> None:
        self.out, self.jobs, self.more = out, jobs, more

    def python(self, log: str, *words: object) -> None:
        """Run python with these words; on a failure say where its words are."""
        path = self.out / "logs" / f"{log}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as said:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
            command = [sys.executable, *map(str, words)]
            ended = subprocess.run(command, stdout=said, stderr=said, env=environment, check=False)
        if ended.returncode:
            sys.exit(f"{log} ended with status {ended.returncode}; see {path}. The same command goes on.")
        print(f"{log} done", flush=True)

    def dphrl(self, log: str, stage: str, *words: object) -> None:
        """A stage of dphrl with the recipe's config and this program's further options."""
        self.python(log, "-m", "dphrl", stage, self.out / "spider.yaml", *words, *self.more)

    def base(self, spider: Path, epochs: float) -> None:
        """The tuned base and the questions; the config and Spider's databases beside them."""
        self.out.mkdir(parents=True, exist_ok=True)
        shutil.copy(HERE / "spider.yaml", self.out / "spider.yaml")
        if not (self.out / "spider").exists():
            (self.out / "spider").symlink_to(spider.resolve(), target_is_directory=True)
        if not (self.out / "questions" / "cross_domain.jsonl").exists():  # its last file
            self.python("questions", HERE / "questions.py", "--spider", spider, "--out", self.out / "questions")
        if not (self.out / "smollm2" / "tokenizer.json").exists():
            self.python("smollm2", HERE.parent / "get_smollm2.py", self.out / "smollm2")
        if not (self.out / "model").exists():
            where = ["--model", self.out / "smollm2", "--questions", self.out / "questions" / "tune.jsonl"]
            self.python("tune", HERE / "tune.py", *where, "--out", self.out / "model", "--epochs", epochs)

    def measure_base(self, name: str) -> None:
        """Pre-samples of a base run, in a share a job, and the base's evaluation."""
        options = BASES[name].split()
        if not (self.out / name / "anchors" / "manifest.json").exists():
            shares = [self.out / f"{name}-share-{i}" for i in range(1, self.jobs + 1)]

            def one(number: int, share: Path) -> None:
                part = ["--shard", f"{number}/{self.jobs}", "--out", share]
                self.dphrl(f"{name}-presample-{number}", "presample", *part, *options)

            with ThreadPoolExecutor(self.jobs) as pool:
                list(pool.map(one, range(1, self.jobs + 1), shares))
            where = ["--out", self.out / name, "--config", self.out / "spider.yaml"]
            self.python(f"{name}-merge", "-m", "dphrl", "merge", *shares, *where)
        self.dphrl(f"{name}-eval", "eval", "--out", self.out / name, "--model", "base", *options)

    def train(self, runs: dict[str, str]) -> None:
        """Train and measure each run; what is done already is kept."""

        def one(item: tuple[str, str]) -> None:
            name, options = item
            places = ["--out", self.out / name, "--base_run", self.out / base_of(options)]
            self.dphrl(f"{name}-train", "train", *places, *options.split())
            self.dphrl(f"{name}-eval", "eval", *places, *options.split(), "--model", "final")

        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(one, runs.items()))

    def report(self) -> None:
        """Of every measured run that lies here, also of earlier commands."""
        found = (sorted(self.out.glob(f"{name}-s*/eval/final/summary.json")) for name in METHODS)
        measured = [path.parents[2] for paths in found for path in paths]
        self.python("report", "-m", "dphrl", "report", *measured, "--out", self.out / "report")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spider", type=Path, required=True, help="folder of Spider: *.jsonl and database/")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default="grpo,dph_f", help=f"of {', '.join(METHODS)}; default grpo,dph_f")
    parser.add_argument("--seeds", default="0", help="training seeds, as 0,1")
    parser.add_argument("--epochs", type=float, default=0.6, help="of tuning the base")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side, a core each")
    arguments, more = parser.parse_known_args()
    names = [name for name in arguments.methods.split(",") if name]
    if unknown := set(names) - set(METHODS):
        parser.error(f"methods {sorted(unknown)} are not known; allowed: {', '.join(METHODS)}")
    if not (arguments.spider / "train_spider.jsonl").is_file():
        parser.error(f"--spider {arguments.spider} holds no train_spider.jsonl; give the folder of Spider")
    pipeline = Pipeline(arguments.out, arguments.jobs, more)
    pipeline.base(arguments.spider, arguments.epochs)
    for base in dict.fromkeys(["base", *(base_of(METHODS[name]) for name in names)]):
        pipeline.measure_base(base)
    seeds = arguments.seeds.split(",")
    pipeline.train({f"{name}-s{seed}": f"--seed {seed} {METHODS[name]}" for seed in seeds for name in names})
    pipeline.report()


if __name__ == "__main__":
    main()
