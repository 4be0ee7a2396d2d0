"""Nested lists of clips: what is drawn, that it is the same each time, that the models read it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import samples
from tests.simulated import succeed
from utils.base.errors import UserError
from utils.data.annotations import Annotations
from utils.data.records import read_split
from utils.subsample_clips import count_by_clip, drawing_order, main, share_of

UIDS = st.lists(st.text("abcdef0123", min_size=1, max_size=6), unique=True, max_size=40)


def annotations(**texts):
    """One clip for each name, with the texts of its queries."""
    clips = {uid: [{"query": text} for text in words] for uid, words in texts.items()}
    return samples.annotations(**clips)


def test_counts_only_clips_that_have_such_queries():
    content = annotations(
        a=["where?", "", "# C cuts"], b=["#C C eats"], c=[None], d=["who?", "when?"]
    )
    mixed = msgspec.convert(content, Annotations)
    assert count_by_clip(mixed, "queries") == {"a": 1, "d": 2}
    assert count_by_clip(mixed, "narrations") == {"a": 1, "b": 1}


@given(UIDS, st.integers(0, 9), st.floats(0, 100), st.floats(0, 100))
def test_lists_are_nested(uids, seed, one, other):
    order = drawing_order(uids, seed)
    assert sorted(order) == sorted(uids)
    small, large = (share_of(order, share) for share in sorted((one, other)))
    assert large[: len(small)] == small
    assert share_of(order, 100) == order and share_of(order, 0) == []


@given(UIDS, st.data(), st.integers(0, 9))
def test_order_depends_on_the_seed_and_the_clip_alone(uids, data, seed):
    subset = [uid for uid in uids if data.draw(st.booleans())]
    expected = [uid for uid in drawing_order(uids[::-1], seed) if uid in subset]
    assert drawing_order(subset, seed) == expected


def test_seeds_and_shares_decide_what_is_drawn():
    uids = [f"clip_{number}" for number in range(200)]
    assert drawing_order(uids, 1) != drawing_order(uids, 2)
    assert [len(share_of(uids, share)) for share in (0, 0.1, 10, 12.4, 35)] == [0, 1, 20, 25, 70]


def test_writes_what_the_models_read(simulated, tmp_path, capsys):
    source = simulated / "nlq_train.json"
    run = ["--annotations", str(source), "--shares", "25", "0", "50", "--output_dir", str(tmp_path)]
    main(run)
    table = capsys.readouterr().out
    files = {
        share: tmp_path / f"nlq_train_queries_{share}_percent_seed_1.txt" for share in (0, 25, 50)
    }
    assert sorted(files.values()) == sorted(tmp_path.iterdir())
    before = {share: file.read_text().split() for share, file in files.items()}
    assert before[0] == [] and before[50][: len(before[25])] == before[25]
    kept, _ = read_split(simulated, "nlq_official_v1", "train", zeroshot_clips=files[50])
    assert {kept.clip_uids[clip] for clip in kept.clip} == set(before[50])
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    assert [row[3:5] for row in rows if "50 %" in row] == [[str(len(before[50])), str(len(kept))]]
    main(run)
    assert before == {share: file.read_text().split() for share, file in files.items()}


def test_narrations_are_drawn_from_and_must_be_there(tmp_path):
    source = tmp_path / "naq.json"
    source.write_text(json.dumps(annotations(a=["where?"], b=["#C C eats"], c=["#C C cuts"])))
    program = "utils/subsample_clips.py"
    common = ["--annotations", source, "--output_dir", tmp_path]
    output = succeed(program, *common, "--shares", "2.5", "--kind", "narrations", "--seed", "7")
    assert "|   all |     2 |          2 |" in output
    written = (tmp_path / "naq_narrations_2.5_percent_seed_7.txt").read_text()
    assert written in ("b\n", "c\n")
    source.write_text(json.dumps(annotations(a=["where?"])))
    with pytest.raises(UserError, match="no clip with narrations in it"):
        main([*map(str, common), "--shares", "5", "--kind", "narrations"])
