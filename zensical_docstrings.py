"""For the site alone: docstrings as Google's style has them, with a blank line before each section."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object


class Sections(Extension):
    """Ours have no blank lines between sections, and say "Raises: Nothing", which is no exception's name."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"\nRaises:\n\s+Nothing", "\n\nRaises nothing", obj.docstring.value)
            obj.docstring.value = re.sub(r"\n(Args|Returns|Raises|Source):", r"\n\n\1:", text)
