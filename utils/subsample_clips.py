"""Draw nested lists of clips for few-shot training: a list of 10 % is the start of that of 25 %.

    python utils/subsample_clips.py --annotations data/nlq_train.json --shares 10 25 35 --seed 1 \\
        --output_dir data/subsets

The models read the lists, one clip uid per line, with --zeroshot_subsample_clips (queries) and
--scaling_subsample_clips (narrations: --kind narrations, from the NaQ file).
"""

import sys
from pathlib import Path

if not __package__:  # run as a file: make the checkout importable wherever it lies
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import utils.base.environment

from collections import Counter
from collections.abc import Iterable

from utils.base.errors import UserError, run_program
from utils.base.files import atomic_write, fingerprint
from utils.base.options import SEEDS, ArgumentParser, within
from utils.base.tables import figure_table
from utils.data.annotations import Annotations, iter_queries, read_annotations
from utils.data.records import NARRATION_MARK

KINDS = ("queries", "narrations")


def count_by_clip(annotations: Annotations, kind: str) -> Counter[str]:
    """Number of queries, or narrations, of each clip that has any."""
    return Counter(
        query.clip_uid
        for query in iter_queries(annotations)
        if query.text.lstrip().startswith(NARRATION_MARK) == (kind == "narrations")
    )


def drawing_order(clip_uids: Iterable[str], seed: int) -> list[str]:
    """The clips in a random order.

    They are sorted by a hash of seed and uid, so that the order of two clips does not depend on
    other clips: lists of v1 and v2, or of queries and narrations, overlap as much as possible.
    """
    return sorted(clip_uids, key=lambda uid: (fingerprint(str(seed), uid), uid))


def share_of(order: list[str], percent: float) -> list[str]:
    """The first `percent` of the clips, rounded; at least one, unless `percent` is 0."""
    return order[: max(round(len(order) * percent / 100), int(percent > 0))]


def main(arguments: list[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--annotations", required=True, metavar="FILE", help="annotations to draw from")
    add(
        "--shares", required=True, type=within(float, "[0, 100]"), nargs="+", metavar="X",
        help="per cent of the clips; 0 is an empty list (zero-shot)",
    )  # fmt: skip
    add("--seed", type=within(int, SEEDS), default=1, metavar="N", help="another seed, other clips")
    add(
        "--kind", choices=KINDS, default="queries",
        help="count clips that have these; NaQ files have both",
    )  # fmt: skip
    add("--output_dir", required=True, metavar="DIR", help="where the lists go")
    options = parser.parse_args(arguments)
    source = Path(options.annotations)
    counts = count_by_clip(read_annotations(source), options.kind)
    if not counts:
        raise UserError(f"{source}: no clip with {options.kind} in it, nothing to draw from")
    order = drawing_order(counts, options.seed)
    rows = [["file", "share", "clips", options.kind]]
    for share in sorted(set(options.shares)):
        clips = share_of(order, share)
        name = f"{source.stem}_{options.kind}_{share:g}_percent_seed_{options.seed}.txt"
        file = Path(options.output_dir) / name
        with atomic_write(file) as lines:
            lines.write("".join(f"{uid}\n" for uid in clips).encode())
        count = sum(counts[uid] for uid in clips)
        rows.append([file, f"{share:g} %", len(clips), count])
    print(figure_table([*rows, [source, "all", len(counts), counts.total()]]))


if __name__ == "__main__":
    run_program(main)
