"""Marks of tests that need more than dphrl's core: the environment of `make test-verl` has no TRL."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

NEEDS_TRL = pytest.mark.skipif(find_spec("trl") is None, reason="needs TRL: pip install 'dphrl[trl]'")
