"""docs/file-formats.md names every field of every file, and docs/formulas.md states what the code computes."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from docs_pages import ROOT
from docs_run import quickstart_folder

from dphrl.anchors.arrow_files import anchor_schema
from dphrl.anchors.manifest import SCHEMA as STORE_SCHEMA
from dphrl.cli.main import main
from dphrl.files import read_json
from dphrl.method.divergences import GENERATORS, generator
from dphrl.runs.samples import FORMS, SCHEMA

FORMATS = (ROOT / "docs" / "file-formats.md").read_text()
FORMULAS = (ROOT / "docs" / "formulas.md").read_text()


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return quickstart_folder(tmp_path_factory)


def table(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table below a heading."""
    below = page[page.index(f"\n## {heading}\n") :]
    found = re.search(r"^\|[^\n]*\|\n\|[-|]+\|\n((?:\|[^\n]*\|\n)+)", below, re.MULTILINE)
    assert found is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]


def names(heading: str) -> list[str]:
    return [row[0].strip("`") for row in table(FORMATS, heading)]


def test_columns_of_samples_and_anchors() -> None:
    assert names("Samples") == [*SCHEMA.names, *FORMS.names]
    assert names("anchors/part-*.arrow") == anchor_schema(4).names
    kinds = {"text": pa.string(), "whole number": pa.int32(), "true or false": pa.bool_(), "number": pa.float64()}
    for name, kind, _ in table(FORMATS, "Samples")[: len(SCHEMA)]:
        wanted = pa.list_(pa.int32()) if kind.startswith("list of ") else kinds[kind.removesuffix(" or null")]
        assert SCHEMA.field(name.strip("`")).type == wanted, name


@pytest.mark.slow
def test_files_of_a_run_have_the_documented_keys(quickstart: Path) -> None:
    run = quickstart / "runs" / "first"

    def keys(file: str) -> list[str]:
        content: dict[str, Any] = read_json(run / file)
        return list(content)

    stored = pq.read_schema(run / "eval/final/in_domain.parquet").names
    assert set(SCHEMA.names) < set(stored) < set(names("Samples"))  # SQL has solutions, and no answer to vote on
    assert pq.read_schema(run / "presample/completions-00000.parquet").names == SCHEMA.names
    assert keys("presample/partition.json") == names("partition.json")
    beside = [*keys("presample/drawn.json"), *keys("presample/speed.json")]
    assert beside == names("drawn.json, speed.json, shard.json")[: len(beside)]
    manifest = json.loads((run / "anchors/manifest.json").read_text())
    assert list(manifest) == names("anchors/manifest.json") and manifest["schema"] == STORE_SCHEMA == 3
    assert list(manifest["fingerprint"]) == names("Fingerprint")
    assert keys("train/started.json") == names("train/")
    [row] = json.loads((run / "eval/final/summary.json").read_text())["rows"]
    told = (ROOT / "docs" / "evaluation.md").read_text()
    assert not [key for key in row if f"`{key}`" not in told]
    assert set(keys("report/summary.json")) == set(names("compare/summary.json, report/summary.json"))


def test_keys_of_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text('{"completion": "4", "gold": "4"}\n')
    assert main(["verify", "--task", "exact", "--file", "pairs.jsonl", "--out", "verdicts.jsonl"]) == 0
    assert list(json.loads(Path("verdicts.jsonl").read_text())) == names("Verdicts of `dphrl verify`")


def value(formula: str, u: float, a: float) -> float:
    """A formula of the page at u and order a."""
    code = formula.strip("`")
    for sign, python in (("·", "*"), ("−", "-"), ("^", "**"), ("√", "sqrt")):
        code = code.replace(sign, python)
    return float(eval(code, {"__builtins__": {}}, {"u": u, "a": a, "ln": math.log, "sqrt": math.sqrt}))


def test_generators_are_what_the_page_says() -> None:
    rows = table(FORMULAS, "Generators")
    assert {re.match(r"`(\w+)`", row[0])[1] for row in rows} == set(GENERATORS)  # type: ignore[index]
    for name, f, slope, curvature, value_at_0, slope_at_0 in rows:
        ours = generator(name.split("`")[1], alpha=0.5, log_u_cap=80.0)
        log_u = torch.tensor([-3.0, -0.7, 0.4, 2.5], dtype=torch.float64)
        stated = [[value(text, math.exp(x), 0.5) for x in log_u.tolist()] for text in (f, slope)]
        torch.testing.assert_close(torch.stack(ours.closed_form(log_u)), torch.tensor(stated, dtype=torch.float64))
        h = torch.tensor([1e-3], dtype=torch.float64)
        assert (2 * ours(h) / h**2).item() == pytest.approx(float(curvature), rel=2e-3), name
        at_0, pull = (x.item() for x in ours.closed_form(torch.tensor(-60.0, dtype=torch.float64)))
        assert pull == pytest.approx(float(slope_at_0.replace("−", "-")), abs=1e-6), name
        limit = math.inf if value_at_0 == "∞" else float(value_at_0.split()[0])
        assert at_0 == pytest.approx(limit, abs=1e-3) if math.isfinite(limit) else at_0 > 50, name
