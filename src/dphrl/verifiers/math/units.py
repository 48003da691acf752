"""The units that may stand beside a number, how they are written, and what a tail of them says."""

from __future__ import annotations

import re
from collections import Counter

from dphrl.verifiers.math.words import ADDED, CHANGING, NEUTRAL, PEOPLE, STOP, words

_UNITS = """
m meter meters metre metres; km kilometer kilometers kilometre kilometres; cm centimeter centimeters centimetre
centimetres; mm millimeter millimeters millimetre millimetres; µm micrometer micrometers micron microns; nm nanometer
nanometers; dm decimeter decimeters; in inch inches; ft foot feet; yd yard yards; mi mile miles; mph; ly; AU;
s sec second seconds secs; ms millisecond milliseconds; µs microsecond microseconds; ns nanosecond nanoseconds;
min minute minutes mins; h hr hrs hour hours; day days; week weeks; month months; yr year years yrs; decade decades;
g gram grams gm; mg milligram milligrams; kg kilogram kilograms; µg; lb lbs pound pounds; oz ounce ounces; ton tons
tonne tonnes; L l liter liters litre litres; mL ml milliliter milliliters millilitre millilitres; gal gallon gallons;
qt quart quarts; pt pint pints; cup cups; acre acres; hectare hectares ha; N newton newtons; kN; J joule joules; kJ
kilojoule kilojoules; cal calorie calories; kcal; W watt watts; kW kilowatt kilowatts; MW; kWh; hp; Pa pascal pascals;
kPa; MPa; atm; bar; Hz hertz; kHz; MHz; GHz; V volt volts; mV; kV; A ampere amperes amp amps; mA; K kelvin kelvins;
T tesla; Wb; F farad farads; C coulomb coulombs; ohm ohms; eV; keV; MeV; GeV; TeV; erg ergs; dyne dynes; Å angstrom
angstroms; mol mole moles; rad radian radians; deg degree degrees; celsius; fahrenheit; rpm; kph kmh kmph; bit bits;
byte bytes; MB; GB; dollar dollars usd USD bucks; cent cents; euro euros EUR; yen; rupee rupees Rs; unit units;
Jy; pc parsec parsecs; kpc; Mpc; Msun; dB; ppm
"""
UNITS: dict[str, str] = {
    name: names.split()[0] for names in _UNITS.replace("\n", " ").split(";") for name in names.split()
}
"""How a unit is written -> its name. Two answers in different units differ; nothing is converted."""
for _name in [name for name in UNITS if len(name) > 3 and name.isalpha()]:
    UNITS.setdefault(_name.capitalize(), UNITS[_name])
CLEAR = words(
    "km cm mm kg ft yd lb lbs oz mph min sec hr hrs kph kmh Hz kHz MHz GHz kJ kW kPa MPa MeV GeV keV TeV eV gal mol "
    "rpm USD EUR Rs in mi deg amp day cup bit nm"
)
"""Units of two and three letters that no product of variables looks like; longer ones are clear, one letter never."""

MONEY = words("dollar cent euro pound yen rupee")
Unit = tuple[tuple[str, int], ...]
"""Names and their powers, sorted; a noun counts as a unit."""
_PIECE = re.compile(
    r"(?P<degree>\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z]))|\\text\{(?P<word>[^{}]*)\}|\\(?P<micro>mu)(?![A-Za-z])\s*|\\(?P<ohm>Omega)(?![A-Za-z])"
    r"|\^\s*\{?\s*(?P<power>-?\d)\s*\}?|(?P<over>/)|(?P<open>\()|(?P<close>\))|(?P<idle>\s+|\\cdot(?![A-Za-z])|[-.,*~])"
    r"|(?P<letter>[A-Za-z]+)"
)
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_PLURAL = re.compile(r"(?:[a-z]+(?:[^aiousx]|e|[aeiou][aeo]))s|[a-z]+(?:ies|ches|shes|xes|sses)", re.IGNORECASE)


_COMPOUND: dict[str, Unit] = {"mph": (("mi", 1), ("h", -1)), "kph": (("km", 1), ("h", -1))}
"""Units that say two."""


class _Tail:
    """What is read so far of what stands behind a number."""

    def __init__(self) -> None:
        self.powers: Counter[str] = Counter()
        self.nouns: list[str] = []
        self.last: str | None = None
        self.sign = 1
        self.next_power = 1
        self.micro = False
        self.deep = False

    def unit(self, word: str) -> None:
        """Count a unit or noun, with the sign and the power that stand before it."""
        name = UNITS.get(word) or UNITS.get(word.lower() if len(word) > 2 else word)
        if self.micro:
            name, self.micro = UNITS.get(f"µ{word}"), False
        if word in ("C", "F") and "deg" in self.powers:
            del self.powers["deg"]
            name = "celsius" if word == "C" else "fahrenheit"
        if name in ("celsius", "fahrenheit") and "deg" in self.powers:
            del self.powers["deg"]
        if name is None:
            name = _stem(word.lower())
            self.nouns.append(word)
        for part, power in _COMPOUND.get(name, ((name, 1),)):
            self.powers[part] += self.sign * self.next_power * power
        self.last, self.next_power = name, 1
        self.sign = self.sign if self.deep else 1


def read_unit(tail: str) -> tuple[Unit, tuple[str, ...]] | None:
    """The unit and the words in what stands behind a number.

    Args:
        tail: text in which words are \\text{WORD}.
    Returns:
        The unit, and those of its words that are in no list of units. None where the tail holds more than units, and
        for letters in a row that are a product as well.
    """
    state, position = _Tail(), 0
    while position < len(tail):
        piece = _PIECE.match(tail, position)
        if piece is None:
            return None
        position = piece.end()
        word = piece["word"]
        letter = piece["letter"]
        if letter and not (state.last == "deg" and letter in ("C", "F")) and not (state.sign < 0 and letter in UNITS):
            return None
        word = letter or word
        inches = word == "in" and not tail[position:].lstrip().startswith(r"\text")  # and not "in total"
        if word is not None and (inches or word.lower() not in ADDED):
            if word.lower() in ("per", "every", "each", "a"):
                state.sign = -1
            elif word.lower() in _POWERS:
                state.next_power = _POWERS[word.lower()]
            else:
                state.unit(word)
        elif piece["degree"]:
            state.unit("deg")
        elif piece["ohm"]:
            state.unit("ohm")
        elif piece["micro"]:
            state.micro = True
        elif piece["power"]:
            if state.last is None:
                return None
            state.powers[state.last] *= int(piece["power"])
        elif piece["over"]:
            state.sign = -1
        elif piece["open"] or piece["close"]:
            state.deep = piece["open"] is not None
            state.sign = state.sign if state.deep else 1
    if state.micro:
        return None
    return tuple(sorted((name, power) for name, power in state.powers.items() if power)), tuple(state.nouns)


def is_noun(words: tuple[str, ...], one: bool) -> bool:
    """Whether words behind a number name what is counted, as far as can be told: the last in the plural, none that
    changes the value. `one`: the number is 1."""
    lower = [word.lower() for word in words]
    lower = lower[: lower.index("of")] if "of" in lower[1:] else lower
    if CHANGING.intersection(lower) or STOP.intersection(lower) or not all(word.isalpha() for word in lower):
        return False
    return one or any(word in PEOPLE or _PLURAL.fullmatch(word) for word in (lower[0], lower[-1]))


def same_unit(gold: Unit, answer: Unit) -> bool:
    """Whether two units do not contradict each other: equal, one left out, or one that stands for anything."""
    if gold == answer or not gold or not answer:
        return True
    if len(answer) == 1 and answer[0] in gold and answer[0][0] in MONEY:  # $12 for $12 per hour
        return all(power < 0 for part, power in gold if part != answer[0][0])
    names, others = ({name for name, _ in unit} for unit in (gold, answer))
    if names <= NEUTRAL or others <= NEUTRAL:
        return True
    known = set(UNITS.values())
    if names & known or others & known:
        return {"deg"} in (names, others) and (names | others) <= {"deg", "celsius", "fahrenheit"}
    return names <= others or others <= names


def _stem(noun: str) -> str:
    if noun.endswith("ies"):
        return noun[:-3] + "y"
    if noun.endswith(("ches", "shes", "xes", "sses")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") and not noun.endswith("ss") else noun
