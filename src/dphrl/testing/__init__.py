"""Attack a verifier of your own before a policy does: one call in a test says what is wrong with it.

    from dphrl.testing import check_verifier
    from dphrl.verifiers import load_verifier

    def test_reward():
        check_verifier(load_verifier("my_module:reward", {}), items=[{"completion": "1 2 3", "gold": "1 2 3"}])

Needs no test framework; nothing it sends can do more than make files called dphrl-hostile-* where the test runs.
"""

from dphrl.testing.attack import check_verifier
from dphrl.testing.hostile import hostile_texts

__all__ = ["check_verifier", "hostile_texts"]
