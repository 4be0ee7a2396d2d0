"""Options that every model has: where stores lie, and which files a run is made of."""

from pathlib import Path

from utils.training.options import TrainingOptions
from utils.training.runs import input_files


def test_stores_lie_in_the_data_root_unless_elsewhere():
    for given, cache in (({}, "data/cache"), ({"cache_dir": "elsewhere"}, "elsewhere")):
        assert str(TrainingOptions(task="nlq", fv="egovlp", **given).cache) == cache


def test_inputs_are_data_lists_of_clips_and_the_checkpoint_begun_with(tmp_path):
    options = TrainingOptions(task="task", fv="a", data_root=str(tmp_path))
    names = ["dataset/task/train.json", "dataset/task/val.json"]
    names += [f"features/a/feature_{kind}.json" for kind in ("shapes", "card")]
    files = [tmp_path / name for name in names]
    assert input_files(options) == files
    options.zeroshot_subsample_clips, options.init_from = "few.txt", str(tmp_path)
    (tmp_path / "model_9.t7").touch()
    assert input_files(options) == [*files, Path("few.txt"), tmp_path / "model_9.t7"]
