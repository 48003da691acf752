"""Long lists in messages, and files that were damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from dphrl.errors import DataError, RunDirError, listed
from dphrl.files import damage_refused


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
