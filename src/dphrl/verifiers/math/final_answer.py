"""Final answers read off text. No parser of mathematics, nothing evaluated.

Every function is linear in the length of the text and takes any text.
"""

from __future__ import annotations

import math
import re

from dphrl.verifiers.math.plain_text import NUMERAL, SCALE_WORDS, UNSIGNED, ascii_text, clean_answer

_BOX = re.compile(
    r"\\(?:boxed|f(?:rame)?box)(?![A-Za-z])\s*+"
    r"(?:(?P<open>\{)|(?P<token>\d|[A-Za-z](?![A-Za-z])|\\[A-Za-z]++(?:\{[^{}]*\})*+))?"
    r"|\\\\(?!boxed|f(?:rame)?box)|\\[{}]|(?:\{[^{}\\]*+\})++|(?P<braces>\{++|\}++)"
)
_ANSWER_IS = re.compile(
    r"\banswer(?:\s++(?:is|equals|(?:would|should|must|will)\s++be)\b|\*{0,2}+\s*+:)(?:[\s:=]|\*++(?=\s))*+",
    re.IGNORECASE,
)
_DISPLAYED = re.compile(r"\$\$(.+?)\$\$|\\\[(.+?)\\\]", re.DOTALL)
_SENTENCE_END = re.compile(r"\n|(?<!\\)[.!?](?=[\s*]|$)")
_REASON = re.compile(r"(?<!\s)[,;]?\s++(?:because|since|as|which|where|so|thus|hence|therefore)\s")
_FILLER = re.compile(
    r"(?:(?:simply|just|therefore|thus|hence|exactly|about|approximately|roughly|around|equal\s++to|given\s++by|the)\s++)++",
    re.IGNORECASE,
)
_NUMBER = re.compile(rf"(?:(?<![\w)}}])[-+])?{UNSIGNED}", re.ASCII)
_NUMBER_AND_WORDS = re.compile(rf"({NUMERAL}(?:/\d++)?)\s+([A-Za-z]{{2,}}+)[A-Za-z .,'/-]*+", re.ASCII)
_NO_UNITS = frozenset({"and", "or", "to", "times", "plus", "minus", "over", "pi", "if", "for", "but"})
_WINDOW = 4_096
"""Characters at the end of a text in which the last number is looked for first."""
_LATEST = 4
"""Places that announce an answer which are tried, from the last one back, until one does not turn out empty."""


def extract_answer(completion: str) -> str:
    """The final answer of a completion.

    Args:
        completion: text of a completion.
    Returns:
        The content of the last closed \\boxed{} (or \\fbox{}; \\boxed 5 holds one token, as in LaTeX); else what
        follows the last "####" on its line; else the rest of the sentence after the last "answer is" or "answer:"; else
        the last number anywhere (so a bare chain of sums is judged by where it ends); else ''. The last one counts: a
        model may correct itself. Cleaned, see `plain_text.clean_answer`.
    """
    completion = ascii_text(completion)
    box = last_box(completion)
    if box is not None:
        return clean_answer(box)
    marked = _after_hashes(completion)
    if marked is not None:
        return _shortened(clean_answer(marked))
    matches = list(_ANSWER_IS.finditer(completion))[-_LATEST:]
    for match in reversed(matches):
        answer = _shortened(clean_answer(_sentence(completion, match.end())))
        if answer:
            return answer
    return _last_number(completion)


def extract_gold(gold: object) -> str:
    """The answer of a gold column: after its last "####", in its last \\boxed{}, or the whole value.

    Args:
        gold: text, a finite number, or a list of these.
    Returns:
        The answer, cleaned; the items of a longer list with commas between; '' when there is none.
    """
    if isinstance(gold, list | tuple):
        parts = [extract_gold(part) for part in gold]
        return ", ".join(parts) if all(parts) else ""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return ""
    if isinstance(gold, float) and not math.isfinite(gold):
        return ""
    try:
        text = ascii_text(str(gold))
    except ValueError:  # an integer of more digits than Python writes out
        return ""
    box = last_box(text)
    marked = _after_hashes(text)
    return clean_answer(marked if marked is not None else text if box is None else box)


def last_box(text: str) -> str | None:
    """Content of the last box that is closed, of the outer one where they nest; None when there is none."""
    first = text.find("box")
    if first < 0:
        return None
    boxes: list[tuple[int, int]] = []  # open boxes: where the content begins, and how many braces were open before
    depth = 0
    content = None
    for match in _BOX.finditer(text, max(0, first - len(r"\frame"))):
        braces = match["braces"]
        if match["token"] is not None:
            content = match["token"]
        elif match["open"] is not None:
            boxes.append((match.end(), depth))
            depth += 1
        elif braces is None:
            continue
        elif braces[0] == "{":
            depth += len(braces)
        else:
            start = match.start()
            while boxes and boxes[-1][1] >= depth - len(braces):
                begin, outside = boxes.pop()
                content = text[begin : start + depth - outside - 1]
            depth = max(0, depth - len(braces))
    return content


def _after_hashes(text: str) -> str | None:
    start = text.rfind("####")
    return None if start < 0 else text[start + 4 :].partition("\n")[0]


def _sentence(text: str, start: int) -> str:
    """The displayed formula, or the rest of the sentence, that begins at a place."""
    displayed = _DISPLAYED.match(text, start) if text.startswith(("$$", "\\["), start) else None
    if displayed:
        return displayed[1] or displayed[2]
    end = _SENTENCE_END.search(text, start)
    sentence = text[start : end.start() if end else None]
    reason = _REASON.search(sentence)
    sentence = sentence[: reason.start()] if reason else sentence
    filler = _FILLER.match(sentence)
    return sentence[filler.end() :] if filler else sentence


def _shortened(answer: str) -> str:
    """ "18 dollars every day" -> "18 dollars"; other answers as they are."""
    match = _NUMBER_AND_WORDS.fullmatch(answer)
    if match is None or match[2].lower() in _NO_UNITS | SCALE_WORDS or "/" in answer.removeprefix(match[1]):
        return answer
    return f"{match[1]} {match[2]}"


def _last_number(text: str) -> str:
    window = _WINDOW
    while True:
        start = max(0, len(text) - window)
        numbers = [match for match in _NUMBER.finditer(text, start) if match.start() > start or not start]
        if numbers or not start:
            return numbers[-1].group() if numbers else ""
        window *= 16
