"""How a program ends: what is quoted of a library's words."""

import pytest

from utils.errors import in_brief


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        ("no central directory. It may be cut off", "no central directory. It may be cut off"),
        ("miniz error. If you have seen this before, report it", "miniz error"),
        ("one two. Three four. Five six seven eight nine", "one two. Three four"),
        (
            "a long sentence, which does not end before it must",
            "a long sentence, which does not end...",
        ),
        ("first line.\nsecond line", "first line"),
        ("  spaces   between ", "spaces between"),
        ("x" * 60, "x" * 37 + "..."),
        ("", "ValueError"),
        ("\n\n", "ValueError"),
    ],
)
def test_a_quote_ends_with_a_sentence_or_a_word(words, quoted):
    assert in_brief(ValueError(words), 40) == quoted
    assert len(quoted) <= 40
