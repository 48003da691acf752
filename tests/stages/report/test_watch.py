"""`dphrl watch`: the page of a run that still goes on, on this machine alone; and its options."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dphrl.cli.main import main
from dphrl.config.load import build_config, to_yaml
from dphrl.errors import ConfigError
from dphrl.report.page.serve import PageServer
from dphrl.stages.report.watch import page, server


@contextmanager
def serving(served: PageServer) -> Iterator[PageServer]:
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield served
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def get(served: PageServer, path: str = "/", host: str | None = None) -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", served.server_address[1])
    connection.request("GET", path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    found = answer.status, answer.read().decode(), dict(answer.getheaders())
    connection.close()
    return found


def test_the_page_is_made_again_when_something_changed() -> None:
    stamps, made = [1, 1, 2], iter(("first <b>", "second"))
    with serving(PageServer(0, lambda: next(made), lambda: stamps.pop(0))) as served:
        assert served.server_address[0] == "127.0.0.1"
        status, text, headers = get(served)
        assert (status, text, headers["Content-Type"]) == (200, "first <b>", "text/html; charset=utf-8")
        assert headers["Cache-Control"] == "no-store" and get(served, "/index.html?x=1")[1] == "first <b>"
        assert get(served)[1] == "second"


def test_nothing_else_is_served_and_no_other_site_may_ask() -> None:
    """A name that another site points at 127.0.0.1 would let its scripts read the page."""
    with serving(PageServer(0, lambda: "page", lambda: 0)) as served:
        assert get(served, "/../config.yaml")[0] == 404 and get(served, "/summary.json")[0] == 404
        assert get(served, host=f"evil.example:{served.server_address[1]}")[0] == 403
        assert get(served, host=f"localhost:{served.server_address[1]}")[0] == 200
        with pytest.raises(ConfigError, match=r"--port \d+ cannot be used .* give another, or 0"):
            PageServer(served.server_address[1], lambda: "", lambda: 0)


@pytest.mark.slow
def test_a_run_that_goes_on_shows_its_curves_and_what_is_missing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    waiting = page([run], None)
    assert f"{run} has not begun" in waiting and 'http-equiv="refresh" content="10"' in waiting
    config = build_config({"out": str(run), "method": "grpo", "model": {"path": "demo"}})
    (run / "train").mkdir(parents=True)
    (run / "config.yaml").write_text(to_yaml(config))
    lines = [json.dumps({"step": s, "reward": s / 10, "entropy": 1.0}) for s in range(1, 5)]
    with serving(server([run], None)) as served:
        assert "run: the first log line of training" in get(served)[1]
        (run / "train" / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 5, "rew')
        text = get(served)[1]
    assert '<figure id="training-reward"' in text and "GRPO 0.1 (step 1)" not in text
    assert "run: the evaluation of the trained model" in text and "presamples" not in text
    assert 'GRPO ends at 0.3"' in text  # the mean of 0.2, 0.3, 0.4: the broken line is left out


def test_options_that_would_be_ignored_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path), "--port", "8000"]) == 2
    assert "--port is an option of `dphrl watch`" in capsys.readouterr().err
    assert main(["watch", str(tmp_path), "--no-drift"]) == 2
    assert "No such option '--no-drift'" in capsys.readouterr().err
