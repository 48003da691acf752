"""Texts of a model on the page: cut to a bounded number of bytes, hidden characters written out."""

from __future__ import annotations

from dphrl.report.labels import visible


def cut(text: str, room: int, *, keep_end: bool = False) -> tuple[str, int]:
    """The text as the page shows it, and how many of its letters are left out.

    Args:
        text: anything, of any length.
        room: most bytes that it may take in the page, escaped; at least 16.
        keep_end: leave out the beginning instead of the end, as for prompts, whose question comes last.
    Returns:
        Text with hidden characters written out, not yet escaped; letters of `text` left out (count).
    """
    shown = text[-room:] if keep_end else text[:room]
    while (size := _bytes(shown)) > room:
        fewer = max(1, len(shown) * room // size - 1)
        shown = shown[-fewer:] if keep_end else shown[:fewer]
        if len(shown) == 1:
            break
    return visible(shown), len(text) - len(shown)


def cut_middle(text: str, room: int) -> tuple[str, int, str]:
    """Both ends of a text: a completion begins with how it goes about it, and ends with its answer.

    Args:
        text: anything, of any length.
        room: as for `cut`; at least 40.
    Returns:
        Beginning, letters that are left out (count), end; the end is '' where nothing is left out.
    """
    whole, left_out = cut(text, room)
    if not left_out:
        return whole, 0, ""
    (begin, behind), (end, before) = cut(text, 2 * room // 5), cut(text, 3 * room // 5, keep_end=True)
    return begin, behind + before - len(text), end


def _bytes(text: str) -> int:
    """Of the text once it stands in the page."""
    from markupsafe import escape

    return len(str(escape(visible(text))).encode("utf-8", "replace"))
