"""SmolLM2-135M on Spider, from the model's download to the report. Ended early, the same command goes on.

Run: python recipes/spider-smollm2/run.py --spider ../shared/data/spider --out runs/spider-smollm2 --jobs 2

Tunes the base, pre-samples and measures it, then trains and measures each method from it. Everything lies under --out:
the base (`model`), the questions, `base-s0` with pre-samples and anchors, a run a method and seed (`grpo-s0`), logs and
`report` with tables and figures of all of them. The settings are in spider.yaml; options that this program does not
know go to dphrl: --train.steps 100.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
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
"""Base run -> options that it is made with; the first serves a method that names none of them."""


@dataclass(frozen=True, slots=True)
class Run:
    """A training, and the base run that it starts from."""

    method: str
    seed: str

    @property
    def name(self) -> str:
        return f"{self.method}-s{self.seed}"

    @property
    def options(self) -> str:
        return f"--seed {self.seed} {METHODS[self.method]}"

    @property
    def base(self) -> tuple[str, str]:
        """Name and options; of the same seed, since presamples are draws of a seed."""
        made = next((name for name, with_ in BASES.items() if with_ and with_ in METHODS[self.method]), "base")
        return f"{made}-s{self.seed}", f"--seed {self.seed} {BASES[made]}"


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

    def presample(self, base: str, options: str) -> None:
        """Pre-samples and anchors of a base run, in a share a job; from the draws of `base` where it has them."""
        if (self.out / base / "anchors" / "manifest.json").exists():
            return
        drawn = self.out / f"base-{base.rpartition('-')[2]}"
        if (drawn / "anchors" / "manifest.json").exists():
            shutil.copytree(drawn, self.out / base, dirs_exist_ok=True, ignore=shutil.ignore_patterns("anchors"))
            self.dphrl(f"{base}-presample", "presample", "--out", self.out / base, *options.split())
            return
        shares = [self.out / f"{base}-share-{i}" for i in range(1, self.jobs + 1)]

        def one(number: int, share: Path) -> None:
            part = ["--shard", f"{number}/{self.jobs}", "--out", share]
            self.dphrl(f"{base}-presample-{number}", "presample", *part, *options.split())

        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(one, range(1, self.jobs + 1), shares))
        where = ["--out", self.out / base, "--config", self.out / "spider.yaml"]
        self.python(f"{base}-merge", "-m", "dphrl", "merge", *shares, *where)

    def measure_base(self, base: str, options: str) -> None:
        self.dphrl(f"{base}-eval", "eval", "--out", self.out / base, "--model", "base", *options.split())

    def train(self, run: Run, base_measured: Future[None]) -> None:
        """Train a run, and measure it when its base was; what is done already is kept."""
        places = ["--out", self.out / run.name, "--base_run", self.out / run.base[0]]
        self.dphrl(f"{run.name}-train", "train", *places, *run.options.split())
        base_measured.result()
        self.dphrl(f"{run.name}-eval", "eval", *places, *run.options.split(), "--model", "final")

    def train_all(self, runs: list[Run]) -> None:
        """The bases' presamples one after the other; then evaluations of bases and trainings side by side."""
        bases = dict(run.base for run in runs)
        for base, options in bases.items():
            self.presample(base, options)
        with ThreadPoolExecutor(self.jobs) as pool:  # it begins them in this order, so that no run waits for ever
            measured = {base: pool.submit(self.measure_base, base, options) for base, options in bases.items()}
            trained = [pool.submit(self.train, run, measured[run.base[0]]) for run in runs]
            for each in [*measured.values(), *trained]:
                each.result()

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
    seeds = arguments.seeds.split(",")
    pipeline.train_all([Run(name, seed) for seed in seeds for name in names])
    pipeline.report()


if __name__ == "__main__":
    main()
