"""Sentences as text encoders read them, and the words in them that describe what is seen."""

import re

# Words that do not.
_FUNCTION_WORDS = """
    a an and are at by c did do does for from had has have he her his how i in into is it its my of
    off on or out she that the their them then they this to up was were what when where which while
    who with
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
ENDINGS = re.compile(r"(ing|ed|es|s|e)$")
DOUBLED = re.compile(r"([a-z])\1$")  # with the endings: "cuts", "cutting" and "cut" are one


def clean_sentence(text: str) -> str:
    """Prepare a query for text encoders: lower case, stripped, with one question mark at its end.

    Spaces are stripped before question marks: "knife ?" keeps its space, as published.
    """
    return text.strip(" ").strip("?").lower() + "?"


def content_words(sentence: str) -> list[str]:
    """`#C C cuts the onion` -> `cut`, `onion`."""
    words = re.findall(r"[a-z]+", sentence.lower())
    stems = (ENDINGS.sub("", word) or word for word in words if word not in FUNCTION_WORDS)
    return [DOUBLED.sub(r"\1", stem) for stem in stems]
