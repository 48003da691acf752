"""When two query results are equal, for both benchmarks. Pure: rows in, a truth value out.

Cells compare as Python values: None == None, 1 == 1.0, text never equals a number. Floats compare exactly; what
counts as one number, `near_numbers` has made equal before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from dphrl.verifiers.sql.result_json import Row, Rows

Columns = tuple[list[Row], list[Row]]
"""The distinct columns of both results."""
Colours = tuple[list[int], list[int]]
"""One number for each of them; a permutation matches only columns of one number."""

SPARE_TRIES = 2000
"""Refinements granted to any result: more than there are ways to tie six columns to six."""


Ties = Sequence[tuple[int, int]]
"""Begin and end of runs of rows."""


def says_nothing(rows: Rows) -> bool:
    """Whether there are no rows, or no cells but NULL: what very different queries return."""
    return all(cell is None for row in rows for cell in row)


def spider_equal(gold: Rows, rows: Rows, *, ordered: bool, ties: Ties = ()) -> bool:
    """Equality of the Spider test-suite script: the same bag (or list) of rows under some permutation of the columns.

    Args:
        gold, rows: results, each with rows of one width.
        ordered: whether the order of the rows counts.
        ties: runs of gold rows that may stand in any order all the same.
    Returns:
        True when equal; two empty results are, whatever their widths.
    """
    if len(gold) != len(rows):
        return False
    if not gold or gold == rows:
        return True
    if len(gold[0]) != len(rows[0]) or _hash_of_cells(gold) != _hash_of_cells(rows):
        return False
    if ordered and not ties:
        return Counter(zip(*gold, strict=True)) == Counter(zip(*rows, strict=True))
    if ordered:
        gold, rows = _with_places(gold, ties), _with_places(rows, ties)
    return Counter(gold) == Counter(rows) or (len(gold[0]) > 1 and _permutation_exists(gold, rows))


def bird_equal(gold: Iterable[Row], rows: Iterable[Row]) -> bool:
    """Equality of the BIRD script: the same set of rows, columns by position."""
    return frozenset(gold) == frozenset(rows)


def list_equal(gold: Rows, rows: Rows, *, ties: Ties = ()) -> bool:
    """The same list of rows, columns by position; `ties` as in `spider_equal`."""
    if len(gold) != len(rows) or not ties:
        return list(gold) == list(rows)
    return Counter(_with_places(gold, ties)) == Counter(_with_places(rows, ties))


@dataclass(frozen=True, slots=True)
class _Place:
    """A cell that says where a row stands; it equals no value of SQL, so that its column can only be matched to its
    like."""

    number: int


def _with_places(rows: Rows, ties: Ties) -> Rows:
    """The rows with a column that says where they stand; tied rows stand in one place. As bags they are equal where the
    lists are."""
    places = [*range(len(rows))]
    for first, end in ties:
        places[first:end] = [first] * (end - first)
    return [(*row, _Place(place)) for row, place in zip(rows, places, strict=True)]


def _hash_of_cells(rows: Rows) -> int:
    """The same for any order of rows and columns; tells most unequal results apart in a moment."""
    return sum(map(hash, chain.from_iterable(rows)))


def _permutation_exists(gold: Rows, rows: Rows) -> bool:
    """Whether permuting the columns of `rows` makes it the same bag of rows as `gold`.

    Individualise and refine: colours that some permutation must keep are made finer until they name the columns. Equal
    columns are interchangeable, so each is kept once, its count as first colour. Where a colour is left with several
    columns, one of them is tied to each candidate in turn. Real results are told apart by the first refinement.

    The question is as hard as whether two graphs are the same, for which no polynomial method is known; this one is
    polynomial because it gives up. `len(columns) ** 2` refinements find the permutation unless a tie that refinement
    cannot tell from a good one is bad; SPARE_TRIES make it exact for up to six columns in any case.
    """
    left, right = Counter(zip(*gold, strict=True)), Counter(zip(*rows, strict=True))
    columns = (list(left), list(right))
    branches = [iter([(list(left.values()), list(right.values()))])]
    tries = len(left) ** 2 + SPARE_TRIES
    while branches and tries:
        colours = next(branches[-1], None)
        if colours is None:
            branches.pop()
            continue
        tries -= 1
        refined = _refine(columns, colours)
        if refined is None:
            continue
        if len(set(refined[0])) < len(refined[0]):
            branches.append(_ties(refined))
        elif _same_rows(columns, refined):
            return True
    return False


def _ties(colours: Colours) -> Iterator[Colours]:
    """Colours in which a column of the left side and one of the right have a new one for themselves: the first column
    of the rarest shared colour with each that may be its partner."""
    left, right = colours
    shared = min((count, colour) for colour, count in Counter(left).items() if count > 1)[1]
    first, new = left.index(shared), max(left) + 1
    for other, colour in enumerate(right):
        if colour == shared:
            yield [*left[:first], new, *left[first + 1 :]], [*right[:other], new, *right[other + 1 :]]


def _same_rows(columns: Columns, colours: Colours) -> bool:
    """Whether the rows are the same once the columns are matched by their colours."""
    matched = [columns[1][colours[1].index(colour)] for colour in colours[0]]
    return Counter(zip(*columns[0], strict=True)) == Counter(zip(*matched, strict=True))


def _refine(columns: Columns, colours: Colours) -> Colours | None:
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
