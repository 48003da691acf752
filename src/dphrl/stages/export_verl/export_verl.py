"""`dphrl export verl`: the prompts of a run as Parquet files that verl trains and validates on."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dphrl.config.root import Config
from dphrl.config.sources import TaskConfig
from dphrl.engines.verl.prompt_ids import text_template, verl_prompt_ids
from dphrl.errors import DataError
from dphrl.files import replaced_dir, write_json
from dphrl.models.policy import Policy, load_policy
from dphrl.progress import Progress, silent
from dphrl.runs.lock import disk_errors
from dphrl.runs.run_dir import base_of, read_run
from dphrl.sampling.encoded_prompts import EncodedPrompts, encode_prompts, task_for_policy
from dphrl.stages.evaluate.measure_model import load_eval_tasks
from dphrl.stages.export_verl.checks import (
    FORMAT,
    MANIFEST,
    TRAIN,
    check_drawn,
    check_importable,
    check_names,
    check_target,
)
from dphrl.stages.export_verl.settings_for_verl import settings_for_verl
from dphrl.stages.presample.training_prompts import training_ids
from dphrl.tasks.verl_rows import verl_row
from dphrl.types import Prompt, Task

if TYPE_CHECKING:
    import pyarrow

CHECKED = "checked: by these settings verl reads every prompt as the tokens that dphrl draws from"


@dataclass(frozen=True, slots=True)
class VerlFile:
    """One Parquet file of an export."""

    path: Path
    task: str
    """What its rows have as `data_source`."""
    rows: int
    longest: int
    """Longest prompt (tokens)."""
    left_out: int
    """Prompts that leave no room for a completion in the model's context."""


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    train: VerlFile
    validation: tuple[VerlFile, ...]
    settings: tuple[str, ...]
    """Settings for verl's command line, as Hydra reads them."""
    notes: tuple[str, ...]


def export_verl(root: Path, out: Path, *, base_dir: Path = Path(), progress: Progress = silent) -> Export:
    """Write OUT/train.parquet, the prompts that `dphrl train` would train on, and OUT/NAME.parquet for each eval task.

    Every row is held to the token ids that dphrl draws from: verl, with the settings returned, makes the same of it.

    Args:
        root: a run; pre-sampled, where its method trains on the exploration set alone.
        out: a new folder, or an older export, which is replaced as a whole.
        base_dir: folder that relative paths of the config refer to.
    Raises:
        RunDirError: no run, no partition, other prompts than were pre-sampled, or `out` holds something else.
        ConfigError: an eval task whose name is no name of a file.
        DataError: a prompt that verl would read by other tokens, or that a row cannot hold.
        VerifierError: a function of the user's that verl's workers would not find.
    """
    run, config = read_run(root)
    check_target(out)
    check_names(config)
    config = replace(config, model=replace(config.model, device="cpu"))  # no weights are loaded
    policy = load_policy(config)
    task = task_for_policy("task", config.task, policy, base_dir=base_dir)
    base = base_of(config, run)
    ids = set(training_ids(config, task, base, progress))
    trained = encode_prompts(task, policy, config, progress)
    check_drawn(base, trained)
    measured = {
        name: encode_prompts(one, policy, config, progress)
        for name, one in load_eval_tasks(config, policy, base_dir).items()
    }
    template, kept, notes = _one_template(policy, trained, measured)
    for one in (task, *(prompts.task for prompts in kept.values())):
        check_importable(one.verifier)
    held = _Held(policy, template, config)
    out = out.resolve()  # `.` has no name to write beside
    with disk_errors(out), replaced_dir(out) as staging:
        train = _write(staging, TRAIN, source_name(config.task), trained, ids, held)
        validation = tuple(
            _write(staging, name, name, prompts, set(prompts.ids), held) for name, prompts in kept.items()
        )
        files = [replace(file, path=out / file.path.name) for file in (train, *validation)]
        longest = max(file.longest for file in files)
        settings = settings_for_verl(config, [file.path for file in files], longest, template)
        names = {file.path.name: file.rows for file in files}
        write_json(staging / MANIFEST, {"format": FORMAT, "run": str(root.absolute()), "rows": names})
    return Export(files[0], tuple(files[1:]), settings, notes)


def export_text(written: Export) -> str:
    """What the command prints: each file, what was left out, and the settings, quoted for a shell."""
    lines = []
    for file in (written.train, *written.validation):
        out = f"; {file.left_out} too long for the model's context, left out" if file.left_out else ""
        lines.append(f"{file.path}: {file.rows} prompts of {file.task}, the longest {file.longest} tokens{out}")
    settings = [f"  {shlex.quote(word)}" for word in written.settings]
    return "\n".join([*lines, *written.notes, CHECKED, "settings for verl:", " \\\n".join(settings)])


def source_name(cfg: TaskConfig) -> str:
    """What the training task is called: a ready task by its name, any other by its file."""
    return cfg.name if cfg.name != "jsonl" else Path(cfg.data).stem or cfg.name


@dataclass(frozen=True, slots=True)
class _Held:
    """What a row is compared by."""

    policy: Policy
    template: str | None
    config: Config

    def check(self, row: Mapping[str, Any], ids: Sequence[int]) -> None:
        """Raises:
        DataError: verl would read the row by other tokens.
        """
        arguments = self.config.model.chat_template_args
        verls = verl_prompt_ids(self.policy.tokenizer, row["prompt"], self.template, arguments)
        if verls != list(ids):
            place = next(
                (i for i, (a, b) in enumerate(zip(verls, ids, strict=False)) if a != b), min(len(verls), len(ids))
            )
            raise DataError(
                f"prompt {row['extra_info']['id']!r}: verl would read {len(verls)} tokens, and it was pre-sampled with "
                f"{len(ids)}; they differ from token {place} on ({verls[place : place + 3]}, here "
                f"{list(ids[place : place + 3])}); take the begin token out of task.template or the chat template, "
                "which verl does not add once more"
            )


def _one_template(
    policy: Policy, trained: EncodedPrompts, measured: Mapping[str, EncodedPrompts]
) -> tuple[str | None, dict[str, EncodedPrompts], tuple[str, ...]]:
    """The chat template that verl must be given (None = the tokenizer's own), the tasks it serves, a line on others.

    verl has one template for all, and a task's prompts are texts or messages.
    """
    chat = _is_chat(trained.task)
    kept = {name: prompts for name, prompts in measured.items() if _is_chat(prompts.task) == chat}
    others = sorted(set(measured) - set(kept))
    kinds = ("texts", "chat messages")
    note = (
        f"not written: {', '.join(others)}; their prompts are {kinds[not chat]}, those that are trained on are "
        f"{kinds[chat]}, and verl has one chat template; `dphrl eval` measures them"
    )
    return None if chat else text_template(policy.tokenizer), kept, (note,) if others else ()


def _is_chat(task: Task) -> bool:
    return not isinstance(task.prompts[0].prompt, str)  # a task has prompts of one kind


def _write(folder: Path, name: str, source: str, prompts: EncodedPrompts, ids: set[str], held: _Held) -> VerlFile:
    """One file; prompts that the context cannot hold are left out, as `dphrl train` leaves them out."""
    import pyarrow
    import pyarrow.parquet

    wanted = [prompt for prompt in prompts.task.prompts if prompt.id in ids]
    chosen: list[Prompt] = [prompt for prompt in wanted if prompt.id in prompts.encoded]
    if not chosen:
        raise DataError(f"no prompt is left for {name}.parquet; see `dphrl presample` for the sets of the run")
    split = TRAIN if name == TRAIN else "eval"
    rows = []
    for index, prompt in enumerate(chosen):
        row = verl_row(prompt, prompts.task, source=source, split=split, index=index)
        held.check(row, prompts.encoded[prompt.id])
        rows.append(row)
    path = folder / f"{name}.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=_schema()), path)
    longest = max(len(prompts.encoded[prompt.id]) for prompt in chosen)
    return VerlFile(path, source, len(rows), longest, len(wanted) - len(chosen))


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    text = pa.string()
    info = dict.fromkeys(("id", "split", "task", "verifier", "verifier_args", "columns"), text)
    return pa.schema(
        {
            "data_source": text,
            "prompt": pa.list_(pa.struct({"role": text, "content": text})),
            "ability": text,
            "reward_model": pa.struct({"style": text, "ground_truth": text}),
            "extra_info": pa.struct({"index": pa.int64(), "chat": pa.bool_(), **info}),
        }
    )
