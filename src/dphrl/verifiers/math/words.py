"""What words do to a value beside them: tables, one rule each. Lower case, one word each."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


SCALES: dict[str, str] = {
    "dozen": "12",
    "dozens": "12",
    "score": "20",
    "gross": "144",
    "hundred": "10^{2}",
    "hundreds": "10^{2}",
    "thousand": "10^{3}",
    "thousands": "10^{3}",
    "million": "10^{6}",
    "millions": "10^{6}",
    "billion": "10^{9}",
    "billions": "10^{9}",
    "trillion": "10^{12}",
    "trillions": "10^{12}",
}
"""Words after a number that multiply it."""
_PARTS = (
    "half", "third", "quarter", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "hundredth",
    "thousandth", "millionth", "billionth",
)  # fmt: skip
_SIZES = (2, 3, 4, 4, 5, 6, 7, 8, 9, 10, 100, 1000, 10**6, 10**9)
for _part, _size in zip(_PARTS, _SIZES, strict=True):
    SCALES[_part] = SCALES["halves" if _part == "half" else f"{_part}s"] = rf"\frac{{1}}{{{_size}}}"

OPERATORS: tuple[tuple[str, str], ...] = (
    (r"(\S+)\s+below zero", r"-\1"),
    (r"(\S+)\s+degrees below zero", r"-\1"),
    (r"square root of\s+(\S+)", r"\\sqrt{\1}"),
    (r"(\w+)\s+choose\s+(\w+)", r"\\binom{\1}{\2}"),
    (r"to the power of\s+(\S+)", r"^{\1}"),
    ("negative", "-"),
    ("minus", "-"),
    ("plus", "+"),
    (r"times(?=\s+[\d(\\-])", r"\\cdot "),
    ("multiplied by", r"\\cdot "),
    ("divided by", "/"),
    ("over", "/"),
    ("out of", "/"),
    (r"to(?=\s+\d)", ":"),
    ("squared", "^{2}"),
    ("cubed", "^{3}"),
)
"""Words and what they say, tried in turn; a word stands between spaces."""

LABELS = words(
    "the a an so thus hence therefore then we get have find obtain that this it its answer answers result solution "
    "value final correct total is are was be will would should equals equal to of about approximately roughly around "
    "exactly nearly just simply only option choice there"
)
"""Words before a value that say nothing more."""
ADDED = words("in total altogether overall combined exactly only respectively approximately approx")
"""Words behind a value that say nothing more."""
QUALIFIER = (
    r"(?:for|where|with)\s+(?:all|any|every|some|each|arbitrary|integers?|real|natural|positive|constants?)\b.*"
    r"|(?:where|with|for|and)\s+\S+\s+(?:is|are|being)\s+(?:an?\s+|any\s+|all\s+)?(?:arbitrary\s+|real\s+|positive\s+)*"
    r"(?:constants?|integers?|numbers?|parameters?|real)\b.*"
    r"|(?:for|where|with)\s+\S+\s+\\in\s.*"
)
"""What says which values a variable takes: everything it may be."""
SAYINGS = {
    "empty set": r"\emptyset",
    "null set": r"\emptyset",
    "all real numbers": r"(-\infty, \infty)",
    "all reals": r"(-\infty, \infty)",
    "real numbers": r"(-\infty, \infty)",
    "infinity": r"\infty",
    **{
        word: str(number)
        for number, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
        )
    },
}
"""What is said in words and written in signs as well."""
SEPARATORS = frozenset({"and", "or"})
CHANGING = words(
    "below above under over less more least most than minus plus times squared cubed bc bce short fewer before after "
    "not no perhaps maybe always unless except without doubled halved tripled factorial root power mod modulo choose "
    "per by or and r remainder"
)
"""Words that change or doubt the value before them, so that what they say is never left out."""
STOP = words(
    "is at on up for if when where the not of to from in with by as that this which these those then does do did was "
    "has its perhaps yes plus minus versus thus always besides ours yours less"
)
"""No nouns, and none of them makes a formula in a row with others."""
PEOPLE = words(
    "people person child children man men woman women mouse mice goose geese fish sheep deer foot feet tooth teeth "
    "series species cattle dice data pairs money water cash rice sand paint"
)
"""Nouns that do not end in s."""
NEUTRAL = frozenset({"unit", "piece", "item", "way", "time", "total", "number"})
"""Nouns that stand for any other."""
WORDS = words("yes no and or if odd even true false none one two on max min am pm pct")
"""Words of two and three letters that are words wherever they stand alone."""
SHORT = frozenset(word for word in LABELS | ADDED | CHANGING | STOP if len(word) in (2, 3)) | {"all", "any", "out"}
"""Words of two and three letters that are words beside longer ones; else they are products: at, by, bc."""
FUNCTIONS = words(
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp pi sqrt infty lg max min gcd lcm det"
)
"""What LaTeX knows as a command and people write without its backslash."""
