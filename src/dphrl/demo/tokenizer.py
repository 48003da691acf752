"""Word-level tokenizer of the demo world: one token a word, joined by spaces, so that decoded text is runnable SQL."""

from __future__ import annotations

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from dphrl.demo.database import HIGHEST, TABLES
from dphrl.demo.queries import CONDITION_PHRASES, CONFUSABLE, TARGET_PHRASES
from dphrl.demo.world import LETTERS

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
MAX_LENGTH = 96
"""Longest prompt with its completion (tokens); the world's longest needs about 50."""
_SQL = """
SELECT DISTINCT FROM WHERE AND OR NOT IN IS NULL BETWEEN WITH AS GROUP ORDER BY HAVING LIMIT ASC DESC COUNT(*)
COUNT( AVG( SUM( TOTAL( MAX( MIN( ( ) * / , 1.0 t id
"""
SQL_WORDS = _SQL.split()
QUESTION_WORDS = ["of", "with", "in", "size", "reverse", "?", ":", "+", "-", "="]


def vocabulary() -> list[str]:
    """Every token, the special ones first, in a fixed order."""
    phrases = [
        phrase for table in (TARGET_PHRASES, CONDITION_PHRASES) for choices in table.values() for phrase in choices
    ]
    words = [
        *(PAD, END, UNKNOWN),
        *SQL_WORDS,
        *(token for group in CONFUSABLE for token in group),
        *QUESTION_WORDS,
        *(word for phrase in phrases for word in phrase.split()),
        *(table.name for table in TABLES),
        *(str(number) for number in range(HIGHEST + 1)),
        *LETTERS,
    ]
    return list(dict.fromkeys(words))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The world's tokenizer: no token is added around a text, padding goes to the left."""
    ids = {word: number for number, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
