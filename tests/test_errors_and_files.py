"""Long lists in messages, files that were damaged, folders that are replaced."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest

from dphrl.errors import DataError, RunDirError, listed
from dphrl.files import damage_refused, replaced_dir


def test_long_lists_are_cut_and_counted() -> None:
    assert [listed("ab"), listed("abc"), listed(range(5)), listed([])] == ["a, b", "a, b, c", "0, 1, 2 and 2 more", ""]
    assert listed(range(3000), shown=1) == "0 and 2,999 more"


def test_what_the_content_of_a_file_raises_becomes_one_message() -> None:
    for error in (ValueError("no JSON"), KeyError("rows"), TypeError("odd"), AttributeError("none")):
        message = rf"f.json is damaged \({type(error).__name__}: .*\); delete it"
        with pytest.raises(RunDirError, match=message), damage_refused(Path("f.json"), "delete it"):
            raise error
    with pytest.raises(DataError, match="as it was"), damage_refused(Path("f.json"), "delete it"):
        raise DataError("as it was")


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt])
def test_an_older_folder_is_whole_until_the_new_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: type[BaseException] | None
) -> None:
    """Where a signal comes between the two renames, the older one comes back."""
    inner, out = Path.rename, tmp_path / "out"
    (out / "a").mkdir(parents=True)

    def rename(path: Path, target: Path) -> Path:
        if ends is not None and target == out and path.name.endswith(".tmp") and "old" not in path.name:
            raise ends
        return inner(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(ends) if ends else nullcontext(), replaced_dir(out) as staging:
        (staging / "b").touch()
        assert (out / "a").exists()
    assert [path.name for path in out.iterdir()] == ["a" if ends else "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
