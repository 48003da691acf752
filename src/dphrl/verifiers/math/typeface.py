"""One way to write what only looks different: typeface, size, colour, idle commands are taken off; words stay marked.

The result is LaTeX in which every word stands alone in \\text{WORD}, and all else is mathematics.
"""

from __future__ import annotations

import re

from dphrl.verifiers.math.units import CLEAR, UNITS
from dphrl.verifiers.math.words import FUNCTIONS, SHORT, WORDS

_MATH = (
    "mathbf boldsymbol bm mathit mathsf mathtt mathcal mathfrak mathscr pmb bold symbf underline vec mathnormal "
    "ensuremath overrightarrow boxed fbox mathop mathord smash"
)
_UPRIGHT = "mathrm rm operatorname operatorname* mathup symrm"
_TEXT = "text textbf textit textrm textnormal textsf texttt textup textsc textmd emph mbox hbox"
_SWITCHES = (
    "bf it sl tt sf displaystyle textstyle scriptstyle limits nolimits large Large LARGE huge Huge small footnotesize "
    "normalsize tiny left right middle bigl bigr Bigl Bigr biggl biggr Biggl Biggr big Big bigg Bigg checkmark "
    "blacksquare square hfill centering notag nonumber bfseries itshape"
)
_COLOURS = ("color", "textcolor", "colorbox", "mathcolor")
_SAME = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "nicefrac": r"\frac", "sfrac": r"\frac",
    "dbinom": r"\binom", "tbinom": r"\binom", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]",
    "lparen": "(", "rparen": ")", "langle": "(", "rangle": ")", "lvert": "|", "rvert": "|", "vert": "|", "mid": "|",
    "lVert": r"\|", "rVert": r"\|", "Vert": r"\|", "varnothing": r"\emptyset", "oslash": r"\emptyset",
    "leqslant": r"\le ", "leq": r"\le ", "geqslant": r"\ge ", "geq": r"\ge ", "lt": "<", "gt": ">", "neq": r"\ne ",
    "times": r"\cdot ", "ast": r"\cdot ", "div": "/", "quad": " ", "qquad": " ", "enspace": " ", "thinspace": " ",
    "space": " ", "nobreak": "", "colon": ":", "dots": r"\ldots ", "cdots": r"\ldots ", "dotsc": r"\ldots ",
    "ldots": r"\ldots ", "wedge": r"\text{and}", "vee": r"\text{or}", "land": r"\text{and}", "lor": r"\text{or}",
    "imath": "i", "jmath": "j", "backslash": r"\setminus ", "prime": "'", "top": "T", "intercal": "T",
    "lg": r"\log_{10}", "pounds": r"\text{pound}", "euro": r"\text{euro}", "ce": "", "bullet": r"\cdot ",
    "degree": r"^{\circ}", "textdegree": r"^{\circ}", "degreeCelsius": r"^{\circ}\text{C}", "iff": r"\iff ",
    "dot": r"\dot",
}  # fmt: skip
_COMMAND = re.compile(r"\\(?:([A-Za-z]+)\*?|(.))", re.DOTALL)
_SPACE = frozenset(" ,;:!>\n\t")
_WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*\.?|\d[\d.,]*|\$|.", re.DOTALL)
_RUN = re.compile(
    r"\\text\{[^{}]*\}|\\(?:begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+|(?<![A-Za-z\\])[A-Za-z]{2,}(?:['-][A-Za-z]{2,})*"
)
_CLOCK = re.compile(r"(\d)\s*([ap])\.?\s?m\.?(?![A-Za-z])", re.IGNORECASE)
_NOON = re.compile(r"(?<![A-Za-z])([AaPp])\.\s?[Mm]\.?(?![A-Za-z])")
_LETTERS = re.compile(r"(?<![A-Za-z\\])[A-Za-z]+(?![A-Za-z])(?=[^{}]*\})")
_OVER = re.compile(r"\{([^{}]*)\\over(?![A-Za-z])([^{}]*)\}|^([^{}]*)\\over(?![A-Za-z])([^{}]*)$")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_KINDS = {
    **dict.fromkeys(_MATH.split(), "math"),
    **dict.fromkeys(_UPRIGHT.split(), "upright"),
    **dict.fromkeys(_TEXT.split(), "text"),
    **dict.fromkeys(_SWITCHES.split(), "switch"),
    **dict.fromkeys(_COLOURS, "colour"),
}


def plain_typeface(text: str) -> str:
    """The text without typeface, in which each word stands in \\text{WORD}.

    Args:
        text: an answer of bounded length.
    Returns:
        LaTeX. Letters in a row that no dictionary of ours knows, short or near each other in the alphabet, are a
        product of variables.
    """
    text = _NOON.sub(r"\1m", text)
    text = _CLOCK.sub(lambda match: rf"{match[1]} \text{{{match[2].lower()}m}}", text)
    text = _OVER.sub(lambda match: rf"\frac{{{match[1] or match[3]}}}{{{match[2] or match[4]}}}", text)
    text = re.sub(r"\^\s*'", "'", _faces(text).replace("~", " "))
    runs = [run for run in _RUN.findall(text) if run[0] != "\\"]
    prose = any((len(run) > 3 and not is_product(run)) or run in CLEAR for run in runs)
    marked = _RUN.sub(lambda match: _word_or_product(match, prose), text)
    return re.sub(r"\s+", " ", marked).strip()


def is_product(run: str) -> bool:
    """Whether letters in a row are a product of variables rather than a word."""
    if len(run) < 4:
        return True
    if not run.isalpha() or not run.islower() or not _VOWEL.search(run):
        return not (run[1:].islower() and _VOWEL.search(run)) and "'" not in run and "-" not in run
    return len(set(run)) == len(run) <= 5 and ord(max(run)) - ord(min(run)) <= len(run)


def _faces(text: str) -> str:
    """Typeface commands and idle ones carried out, from left to right."""
    pieces: list[str] = []
    position = 0
    while position < len(text):
        match = _COMMAND.match(text, position)
        if match is None:
            pieces.append(text[position])
            position += 1
            continue
        position = match.end()
        name, sign = match[1], match[2]
        if name is None:
            pieces.append("" if sign == "!" else " " if sign in _SPACE else rf"\{sign}")
            continue
        kind = _KINDS.get(name)
        if kind == "switch":
            position += text.startswith(".", position) and name in ("left", "right", "middle")
            pieces.append("" if name in ("left", "right") else " ")
        elif kind == "colour":
            position = _argument(text, position)[1]
        elif kind == "math":
            content, position = _argument(text, position)
            pieces.append(
                _faces(content)
                if len(content) < 2
                else f"{{{_faces(content)}}}"
                if _needs_braces(text, position)
                else f" {_faces(content)}"
            )
        elif kind == "text" or kind == "upright":
            content, position = _argument(text, position, to_end=name == "rm")
            pieces.append(_upright(content, kind == "text"))
        elif name in _SAME:
            pieces.append(_SAME[name])
        else:
            pieces.append(match[0] + " " if text[position : position + 1].isalpha() else match[0])
    return "".join(pieces)


def _needs_braces(text: str, position: int) -> bool:
    return text[position : position + 1] in ("^", "_", "{", "[")


def _argument(text: str, position: int, to_end: bool = False) -> tuple[str, int]:
    """The argument of a command that ends at a place: a group, or one token; `to_end`: all up to the group's end."""
    while position < len(text) and text[position].isspace():
        position += 1
    if to_end:
        depth, end = 0, position
        while end < len(text) and depth >= 0:
            depth += (text[end] == "{") - (text[end] == "}")
            end += depth >= 0
        return text[position:end], end
    if text[position : position + 1] != "{":
        match = _COMMAND.match(text, position)
        end = match.end() if match else position + 1
        return text[position:end], min(end, len(text))
    depth, end = 0, position
    while end < len(text):
        if text[end] == "\\":
            end += 2
            continue
        depth += (text[end] == "{") - (text[end] == "}")
        end += 1
        if not depth:
            return text[position + 1 : end - 1], end
    return text[position + 1 :], len(text)


def _upright(content: str, is_text: bool) -> str:
    """The words of upright text marked one by one; numbers and signs as they are."""
    content = _faces(content)
    if "\\" in content:
        return f" {content if is_text else _LETTERS.sub(_marked_unit, content)} "
    letters = content.strip()
    if not is_text and letters.isalpha() and len(letters) < 4 and not _known(letters):
        return letters
    if letters.isalnum() and not letters.isalpha() and not letters[0].isdigit():
        return letters  # A3, a numeral to the base 16
    return "".join(_marked(piece) for piece in _WORD.findall(content))


def _marked_unit(match: re.Match[str]) -> str:
    return rf"\text{{{match[0]}}}" if match[0] in UNITS else match[0]


def _known(word: str) -> bool:
    return word in UNITS or word.lower() in WORDS or word.lower() in FUNCTIONS


def _marked(piece: str) -> str:
    if not piece[0].isalpha() or not piece[0].isascii():
        return "" if piece == "$" else piece
    word = piece.rstrip(".")
    return rf"\{word} " if word in FUNCTIONS and word not in ("max", "min") else rf"\text{{{word}}}"


def _word_or_product(match: re.Match[str], prose: bool) -> str:
    """A run of letters: marked already, a function, a word, or a product. `prose`: longer words stand beside it."""
    run, text = match[0], match.string
    if run[0] == "\\":
        return run
    if run in FUNCTIONS and run not in ("max", "min"):
        return rf"\{run} "
    before = text[: match.start()]
    if before.endswith(("_", "_{")):
        return run
    attached = before[-1:].isdigit()
    if run in CLEAR or run.lower() in WORDS or (prose and not attached and run.lower() in SHORT):
        return run if attached and run not in ("cm", "mm", "km", "kg", "mph") else rf"\text{{{run}}}"
    if run in UNITS and len(run) > 3:
        return rf"\text{{{run}}}"
    prefix = next(
        (
            name
            for name in ("arcsin", "arccos", "arctan", "sin", "cos", "tan", "log", "ln", "exp", "sqrt")
            if run.startswith(name) and len(run) - len(name) < 2
        ),
        "",
    )
    if prefix:
        return rf"\{prefix} {run[len(prefix) :]}"
    return run if is_product(run) else rf"\text{{{run}}}"
