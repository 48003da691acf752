"""Prompt templates: {field} is filled in, {{ and }} are braces, and nothing else has a meaning.

`str.format` would also follow attributes and indices ({question.__class__}); a template comes from a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dphrl.errors import ConfigError

_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_FIELD = re.compile(r"\w[\w -]*")


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal texts with a field between each two."""

    texts: tuple[str, ...]
    fields: tuple[str, ...]

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with every field's value; braces in a value stay as they are."""
        filled = (text + values[field] for text, field in zip(self.texts, self.fields, strict=False))
        return "".join(filled) + self.texts[-1]


def parse_template(text: str) -> Template:
    """Parse a template.

    Args:
        text: with {field}, where a field is a name of letters, digits, "_", "-" and spaces.
    Returns:
        The template; `fields` in order of appearance, repeated where the text repeats them.
    Raises:
        ConfigError: a lone brace, or anything but a name within braces.
    """
    texts, fields, position = [""], [], 0
    for match in _PIECE.finditer(text):
        texts[-1] += text[position : match.start()]
        position = match.end()
        piece, field = match.group(), match.group(1)
        if piece in ("{{", "}}"):
            texts[-1] += piece[0]
        elif field is not None and _FIELD.fullmatch(field):
            fields.append(field)
            texts.append("")
        else:
            line = text.count("\n", 0, match.start()) + 1
            raise ConfigError(
                f"task.template line {line} has {piece!r}; write {{field}} for a column, {{{{ and }}}} for braces"
            )
    texts[-1] += text[position:]
    return Template(tuple(texts), tuple(fields))
