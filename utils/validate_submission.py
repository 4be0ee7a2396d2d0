"""Check a challenge file against its split before submission, and correct its form.

    python utils/validate_submission.py --annotations data/nlq_test_unannotated.json \\
        --predictions vslnet_700_test_result.json --output submission.json

Reasons to reject it: missing, unknown or repeated queries, malformed entries, another number of
windows than five, windows that are not finite or reversed, another version or challenge. Oddities
are reported, and corrected in the output if there is only one way to do so.
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from utils.base.errors import run_program
from utils.base.options import ArgumentParser, within
from utils.evaluation.submissions import accept, read_challenge_split, write_normalised


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add(
        "--annotations", required=True, metavar="FILE",
        help="annotations of the split, such as data/nlq_test_unannotated.json",
    )  # fmt: skip
    add("--predictions", required=True, metavar="FILE", help="challenge file to check")
    add(
        "--output", metavar="FILE",
        help="write the file here in the split's order, times as floats and inside the clip",
    )  # fmt: skip
    add(
        "--show", type=within(int, "[1, 1e9]"), default=3, metavar="N",
        help="cases shown of each kind",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    split = read_challenge_split(options.annotations)
    predictions = accept(options.predictions, split, options.show)
    if options.output:
        write_normalised(options.output, options.predictions, predictions, split)
        print(f"wrote {options.output}")


if __name__ == "__main__":
    run_program(main)
