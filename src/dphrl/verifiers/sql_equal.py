"""When two query results are equal, for both benchmarks. Pure: rows in, a truth value out.

Cells compare as Python values: None == None, 1 == 1.0, floats exactly, text never equals a number.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence

Row = tuple[Hashable, ...]
Rows = Sequence[Row]


def spider_equal(gold: Rows, rows: Rows, *, ordered: bool) -> bool:
    """Equality of the Spider test-suite script: the same bag (or list) of rows under some permutation of the columns.

    Args:
        gold, rows: results, each with rows of one width.
        ordered: whether the order of the rows counts.
    Returns:
        True when equal; two empty results are, whatever their widths.
    """
    if len(gold) != len(rows):
        return False
    if not gold or gold == rows:
        return True
    if len(gold[0]) != len(rows[0]):
        return False
    if ordered:
        return Counter(zip(*gold, strict=True)) == Counter(zip(*rows, strict=True))
    if Counter(gold) == Counter(rows):
        return True
    return len(gold[0]) > 1 and _permutation_exists(gold, rows)


def bird_equal(gold: Iterable[Row], rows: Iterable[Row]) -> bool:
    """Equality of the BIRD script: the same set of rows, columns by position."""
    return frozenset(gold) == frozenset(rows)


def _permutation_exists(gold: Rows, rows: Rows) -> bool:
    """Whether permuting the columns of `rows` makes it the same bag of rows as `gold`.

    Equal columns are interchangeable, so each is kept once with its count as first colour; then `_search`.
    """
    left, right = Counter(zip(*gold, strict=True)), Counter(zip(*rows, strict=True))
    return _search((list(left), list(right)), (list(left.values()), list(right.values())), len(gold))


Columns = tuple[list[Row], list[Row]]
Colours = tuple[list[int], list[int]]


def _search(columns: Columns, colours: Colours, height: int) -> bool:
    """Individualise and refine: colours that some permutation must keep are made finer until they name the columns.

    Where a colour is left with several columns, one of them is tied to each candidate in turn. Real results are told
    apart by the first refinement; brute force over permutations, n! of them, is never needed.
    """
    refined = _refine(columns, colours, height)
    if refined is None:
        return False
    left, right = refined
    shared = [colour for colour, count in Counter(left).items() if count > 1]
    if not shared:
        order = [right.index(colour) for colour in left]
        permuted = [columns[1][index] for index in order]
        return Counter(zip(*columns[0], strict=True)) == Counter(zip(*permuted, strict=True))
    own = max(left) + 1
    tied = left.index(shared[0])
    first = [own if index == tied else colour for index, colour in enumerate(left)]
    return any(
        _search(columns, (first, [own if index == other else colour for index, colour in enumerate(right)]), height)
        for other, candidate in enumerate(right)
        if candidate == shared[0]
    )


def _refine(columns: Columns, colours: Colours, height: int) -> Colours | None:
    """Colour rows by the coloured cells in them and columns by theirs, until no colour splits.

    Returns:
        The finest colours so reached, with the same numbers on both sides; None when the two sides differ.
    """
    while True:
        names = _numbering()
        by_row = [
            [names[_bag(zip(side, cells, strict=True))] for cells in zip(*table, strict=True)]
            for table, side in zip(columns, colours, strict=True)
        ]
        if Counter(by_row[0]) != Counter(by_row[1]):
            return None
        names = _numbering()
        new_left, new_right = (
            [names[colour, _bag(zip(rows, column, strict=True))] for colour, column in zip(side, table, strict=True)]
            for table, side, rows in zip(columns, colours, by_row, strict=True)
        )
        if Counter(new_left) != Counter(new_right):
            return None
        if len(set(new_left)) == len(set(colours[0])):
            return new_left, new_right
        colours = (new_left, new_right)


def _numbering() -> defaultdict[Hashable, int]:
    """A dictionary that gives each new key the next number."""
    numbers: defaultdict[Hashable, int] = defaultdict(lambda: len(numbers))
    return numbers


def _bag(items: Iterable[Hashable]) -> Hashable:
    return frozenset(Counter(items).items())
