"""One way to write each character: ASCII or LaTeX where it has such a form. A table, and what Unicode itself says."""

from __future__ import annotations

import re
import unicodedata

_SCRIPTS = re.compile("([⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+)|([₀₁₂₃₄₅₆₇₈₉]+)")
_FROM_SCRIPT = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ₀₁₂₃₄₅₆₇₈₉", "0123456789+-n0123456789")
_FULL_WIDTH = range(0xFF01, 0xFF5F)
_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi  pi rho  sigma tau upsilon phi chi"


class _Characters(dict[int, str]):
    """Character -> how it is written in ASCII; made up as characters are met."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if code < 128:
            plain_character = " " if unicodedata.category(character) == "Cc" and character not in "\n\t" else character
        elif code in _FULL_WIDTH:
            plain_character = chr(code - 0xFEE0)
        elif unicodedata.category(character) == "Nd":
            plain_character = str(unicodedata.decimal(character))
        elif unicodedata.category(character) in ("Zs", "Zl", "Zp", "Cc"):
            plain_character = " "
        elif unicodedata.category(character) == "Cf":  # marks of direction and joints of no width
            plain_character = ""
        elif unicodedata.category(character) == "Cs":
            plain_character = "\ufffd"
        else:
            plain_character = _compatible(character)
        self[code] = plain_character
        return plain_character


def _compatible(character: str) -> str:
    """A fraction or letter of a special shape in ASCII: 2/5 in one character, a bold x; else the character."""
    plain = unicodedata.normalize("NFKD", character)
    above, slash, below = plain.partition("\u2044")
    if slash and above.isdigit() and below.isdigit():
        return rf"\frac{{{above}}}{{{below}}}"
    return plain if plain.isascii() and len(plain) == 1 else character


_COMMANDS = r"""
∞ \infty; ≤ \le; ≥ \ge; ≠ \ne; ≈ \approx; ± \pm; ∓ \mp; ° ^\circ; ∪ \cup; ∈ \in; ∅ \emptyset; … \ldots; ψ \psi;
ω \omega; Δ \Delta; ⌊ \lfloor; ⌋ \rfloor; ⌈ \lceil; ⌉ \rceil; ⟨ \langle; ⟩ \rangle; ∩ \cap; ∉ \notin; ∖ \setminus;
∠ \angle; ≡ \equiv; ∑ \sum; ∫ \int; ∏ \prod; Σ \Sigma; Π \Pi; Ω \Omega; Φ \Phi; Γ \Gamma; Λ \Lambda; Θ \Theta; µ \mu;
ϕ \phi; ∂ \partial;
→ \to; ∀ \forall; ∣ |; ⇒ \Rightarrow; ∴ \therefore; ≅ \cong; ∼ \sim; ∝ \propto; ⊂ \subset; ⊆ \subseteq; ∧ \wedge;
∨ \vee; ¬ \neg; ∅ \emptyset; ⋯ \ldots; ⩽ \le; ⩾ \ge; ℓ \ell; ∇ \nabla
"""
_OTHERS = r"""
÷ /; ⁄ /; ∶ :; ℝ \mathbb{R};
ℤ \mathbb{Z}; ℕ \mathbb{N}; ℚ \mathbb{Q}; ℂ \mathbb{C}; ℃ ^\circ\text{C}; ℉ ^\circ\text{F}; ∛ \sqrt[3]
"""
_ASCII = _Characters(
    {
        **dict.fromkeys(map(ord, "−–—‐‑"), "-"),
        **dict.fromkeys(map(ord, "×⋅·∙"), r"\cdot "),
        **dict.fromkeys(map(ord, "‘’′ʹ"), "'"),
        **dict.fromkeys(map(ord, "″“”"), "''"),
        **{0x3B1 + i: f"\\{name} " for i, name in enumerate(_GREEK.split(" ")) if name},
        **{ord(character): f"{command} " for character, command in map(str.split, _COMMANDS.split(";"))},
        **{ord(character): text for character, text in map(str.split, _OTHERS.split(";"))},
        ord("√"): " sqrt ",
        ord("€"): r"\text{ euro}",
        ord("£"): r"\text{ pound}",
        ord("。"): ". ",
        ord("、"): ", ",
    }
)


def ascii_text(text: str) -> str:
    """The text with every character that has an ASCII or LaTeX form written so; control characters as spaces."""
    if text.isascii() and text.isprintable():
        return text
    if not text.isascii():
        text = _SCRIPTS.sub(_script, text)
    return text.translate(_ASCII)


def _script(match: re.Match[str]) -> str:
    above, below = match.groups()
    return f"^{{{above.translate(_FROM_SCRIPT)}}}" if above else f"_{{{below.translate(_FROM_SCRIPT)}}}"
