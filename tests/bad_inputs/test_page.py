"""docs/inputs.md says what the cases of the tests demand."""

import re

from tests.bad_inputs.page import PAGE
from tests.bad_inputs.test_cases import CASES


def test_the_page_is_that_of_the_cases():
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines()]
    said = {row[0].removeprefix("| "): row[2] for row in rows if len(row) == 5}
    expected = {case.what: case.message.replace("`", "'") for case in CASES}  # marks of code
    wrong = [what for what, words in expected.items() if not re.search(words, said.get(what, ""))]
    assert not wrong, f"{wrong}: write the page again with python -m tests.bad_inputs.page"
