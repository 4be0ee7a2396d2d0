"""Runs along a quantity, drawn."""

import pytest

from utils.base.errors import UserError
from utils.plot_curves import main, read_curves


@pytest.fixture
def runs(tmp_path):
    def run(name, value):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text(
            f'{{"R@1 IoU=0.3": {value - 5}}}\n{{"R@1 IoU=0.3": {value}}}\n'
        )
        return folder

    return run


def test_curves_hold_the_best_evaluation_of_each_run(runs):
    texts = [f"a:10={runs('x', 20)}", f"a:10={runs('y', 30)}", f"b: c:2.5={runs('z', 7)}"]
    curves = read_curves(texts, "R@1 IoU=0.3")
    assert curves == {"a": {10.0: [20, 30]}, "b: c": {2.5: [7]}}


def test_picture_names_curves_and_axes(runs, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "picture.svg"
    main([f"a:1={runs('x', 20)}", f"a:2={runs('y', 30)}", "--output", str(file)])
    assert file.read_text().lstrip().startswith("<?xml")
    with pytest.raises(UserError, match="can't draw this kind of file"):
        main([f"a:1={runs('z', 20)}", "--output", str(tmp_path / "picture.doc")])


def test_wrong_use_is_refused(runs):
    for text in ("a=b", "a:ten=b", "a:1e=b"):
        with pytest.raises(UserError, match="is not CURVE:PLACE=FOLDER"):
            read_curves([text], "mIoU")
    with pytest.raises(UserError, match="has no 'mIoU', but R@1"):
        read_curves([f"a:1={runs('x', 20)}"], "mIoU")
