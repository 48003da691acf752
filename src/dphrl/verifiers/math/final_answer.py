"""Final answers read off text. No parser of mathematics, nothing evaluated.

Every function is linear in the length of the text and takes any text.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from dphrl.verifiers.math.characters import ascii_text
from dphrl.verifiers.math.last_expression import last_expression
from dphrl.verifiers.math.plain_text import NUMERAL, clean_answer
from dphrl.verifiers.math.words import CHANGING, SCALES, STOP

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
_REASON = re.compile(
    r"(?<!\s)[,;]?\s++(?:because|since|as|which|where|so|thus|hence|therefore)\s|,\s*+(?:and\s++)?(?:not|rather|instead)\s"
)
_FILLER = re.compile(
    r"(?:(?:simply|just|therefore|thus|hence|exactly|about|approximately|roughly|around|equal\s++to|given\s++by|the)\s++)++",
    re.IGNORECASE,
)
_NUMBER_AND_WORDS = re.compile(
    rf"({NUMERAL}(?:/\d++)?)\s+([A-Za-z]{{2,}}+)(\s+per\s+[a-z]+)?(?:\s+([A-Za-z]+))?[A-Za-z .,'-]*+", re.ASCII
)
_NO_UNITS = frozenset({"and", "or", "times", "over", "pi", *SCALES}) | CHANGING | STOP
_THOUGHTS_END = re.compile(r"</(?:think|thinking|thought|thoughts|reasoning)>", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL | re.IGNORECASE)
_JOINT = re.compile(r"(?:\s|\$|,|\\[,;: \[\]()]|\\q?quad(?![A-Za-z])|\\text\s*\{\s*,?\s*and\s*\}|and)*+")
_LONGEST_JOINT = 60
_LONGEST_CUT = 200
_PLACEHOLDERS = frozenset(
    {"", "answer", "your answer", "final answer", "...", "\\ldots", "\\cdots", "\\dots", "_", "?"}
)
"""What a box holds that is quoted, not answered with."""
_LATEST = 4
"""Places that announce an answer which are tried, from the last one back, until one does not turn out empty."""


def _is_placeholder(content: str) -> bool:
    return r"\{" not in content and content.strip(" .$\\{}").lower() in _PLACEHOLDERS


class Box(NamedTuple):
    """A closed box: where its command begins, where its content ends, and the content."""

    start: int
    end: int
    content: str


def extract_answer(completion: str) -> str:
    """The final answer of a completion.

    Args:
        completion: text of a completion.
    Returns:
        What stands in the last <answer>, else in the whole text, in both behind the end of thoughts (</think>) where
        text follows it: the content of the last closed \\boxed{} (or \\fbox{}; \\boxed 5 holds one token, as in LaTeX;
        boxes joined by "and" or a comma are one answer, empty ones none); else what follows the last "####" on its
        line; else of a box that was cut off; else the rest of the sentence after the last "answer is" or "answer:",
        unless it is a question; else the last expression. The last one counts: a model may correct itself. Cleaned, see
        `plain_text.clean_answer`.
    """
    text = _behind_thoughts(ascii_text(completion))
    tagged = _last_tagged(text)
    if tagged is None:
        return _announced(text) or last_expression(text)
    return _announced(tagged) or _shortened(
        clean_answer(tagged) if "\n" not in tagged.strip() else last_expression(tagged)
    )


def _announced(text: str) -> str:
    """The answer that a text marks as one; '' where it marks none."""
    box = last_box(text)
    if box is not None:
        return clean_answer(box)
    marked = _after_hashes(text)
    if marked is not None:
        return _shortened(clean_answer(marked))
    cut_off = _cut_box(text)
    if cut_off:
        return clean_answer(cut_off)
    for match in reversed(list(_ANSWER_IS.finditer(text))[-_LATEST:]):
        answer = _shortened(clean_answer(_sentence(text, match.end())))
        if answer:
            return answer
    return ""


def _behind_thoughts(text: str) -> str:
    """What follows the thoughts; all, where nothing follows."""
    if "</" not in text:
        return text
    ends = [match.end() for match in _THOUGHTS_END.finditer(text)]
    return text[ends[-1] :] if ends and text[ends[-1] :].strip() else text


def _last_tagged(text: str) -> str | None:
    start = text.lower().rfind("<answer>")
    match = _TAGGED.match(text, start) if start >= 0 else None
    return match[1] if match and match[1].strip() else None


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
    """Content of the last box that is closed and not empty, with those joined to it; None when there is none."""
    found = [box for box in boxes(text) if not _is_placeholder(box.content)]
    if not found:
        return None
    contents = [found[-1].content]
    for before, behind in zip(found[-2::-1], found[:0:-1], strict=True):
        gap = text[before.end + 1 : behind.start]
        joined = (
            len(gap) <= _LONGEST_JOINT and _JOINT.fullmatch(gap) and ("and" in gap or "," in gap.replace("\\,", ""))
        )
        if not joined or before.content in contents:
            break
        contents.insert(0, before.content)
    return ", ".join(contents)


def boxes(text: str) -> list[Box]:
    """All boxes that are closed, the outer one where they nest."""
    first = text.find("box")
    if first < 0:
        return []
    opened: list[tuple[int, int, int]] = []  # where command and content begin, how many braces were open before
    closed: list[Box] = []
    depth = 0
    for match in _BOX.finditer(text, max(0, first - len(r"\frame"))):
        braces = match["braces"]
        if match["token"] is not None:
            closed.append(Box(match.start(), match.end() - 1, match["token"]))
        elif match["open"] is not None:
            opened.append((match.start(), match.end(), depth))
            depth += 1
        elif braces is None:
            continue
        elif braces[0] == "{":
            depth += len(braces)
        else:
            while opened and opened[-1][2] >= depth - len(braces):
                command, begin, outside = opened.pop()
                end = match.start() + depth - outside - 1
                while closed and closed[-1].start > command:
                    closed.pop()
                closed.append(Box(command, end, text[begin:end]))
            depth = max(0, depth - len(braces))
    return closed


def _cut_box(text: str) -> str:
    """What stands in a last box that the end of the text cut off, where all its own braces are closed."""
    start = text.rfind(r"\boxed{")
    content = text[start + len(r"\boxed{") :] if start >= 0 else ""
    return content if content.count("{") == content.count("}") and len(content) <= _LONGEST_CUT else ""


def _after_hashes(text: str) -> str | None:
    start = text.rfind("####")
    return None if start < 0 else text[start + 4 :].partition("\n")[0]


def _sentence(text: str, start: int) -> str:
    """The displayed formula, or the rest of the sentence, that begins at a place."""
    displayed = _DISPLAYED.match(text, start) if text.startswith(("$$", "\\["), start) else None
    if displayed:
        return displayed[1] or displayed[2]
    end = _SENTENCE_END.search(text, start)
    if end and end[0] == "?":
        return ""
    sentence = text[start : end.start() if end else None]
    reason = _REASON.search(sentence)
    sentence = sentence[: reason.start()] if reason else sentence
    filler = _FILLER.match(sentence)
    return sentence[filler.end() :] if filler else sentence


def _shortened(answer: str) -> str:
    """ "18 dollars every day" -> "18 dollars"; other answers as they are."""
    match = _NUMBER_AND_WORDS.fullmatch(answer)
    if match is None or not _NO_UNITS.isdisjoint(
        (match[2].lower(), (match[4] or "").lower()) if match[4] in CHANGING else (match[2].lower(),)
    ):
        return answer
    return f"{match[1]} {match[2]}{match[3] or ''}"
