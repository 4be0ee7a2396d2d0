"""Runs side by side."""

import json

from tests.simulated import succeed

NAMES = ("R@1 IoU=0.3", "R@1 IoU=0.5", "R@5 IoU=0.3", "R@5 IoU=0.5", "mIoU")


def make_run(folder, *firsts):
    lines = [
        {"epoch": 0, "step": step, "evaluated": 9, "listed": 10}
        | {name: first + place for place, name in enumerate(NAMES)}
        for step, first in enumerate(firsts)
    ]
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_best_evaluations_are_averaged_over_seeds(tmp_path):
    one = make_run(tmp_path / "one", 5.0, 10.0, 10.0, 7.0)
    two = make_run(tmp_path / "two", 20.0)
    output = succeed("utils/compare_runs.py", f"NaQ={one}", f"NaQ={two}", f"NLQ only={one}")
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in output.splitlines()[3:-1]]
    assert rows[0][:2] == ["NaQ (mean of 2)", "15.00 ± 7.07"]
    assert rows[1] == ["seed 1", "10.00", "11.00", "12.00", "13.00", "14.00", "2", "9 of 10"]
    assert rows[2][1] == "20.00"
    assert rows[3][:2] == ["NLQ only", "10.00"]
