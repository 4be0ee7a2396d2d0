"""Options that every model has: what is refused, and where stores lie."""

from dataclasses import dataclass

import pytest

from utils.base.errors import UserError
from utils.base.options import option, parse_options
from utils.training.options import TrainingOptions


@dataclass(kw_only=True)
class Options(TrainingOptions):
    fv: str = option(explanation="other words")
    width: int = option(4, "a model's own")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("profile", -1, "must be in [0, 1e9], is -1"),
        ("nar_exp_factor", 0.5, "must be in [1, 1000], is 0.5"),
        ("tb_log_freq", 0, "must be in [1, 1e9], is 0"),
        ("nms_threshold", 1.5, "must be in (0, 1], is 1.5"),
        ("slurm_nodes", 0, "must be in [1, 1e9], is 0"),
        ("task", "../nlq", "must be a plain name, is '../nlq'"),
        ("fv", "a/b", "must be a plain name, is 'a/b'"),
    ],
)
def test_refused(name, value, words):
    with pytest.raises(UserError) as refused:
        Options(**{"task": "nlq", "fv": "egovlp", name: value})
    assert f"--{name}" in str(refused.value) and words in str(refused.value)


def test_a_model_adds_its_own():
    options = parse_options(Options, "", ["--task", "nlq", "--fv", "egovlp", "--width", "8"])
    assert (options.task, options.width, options.amp) == ("nlq", 8, "off")
    assert str(options.cache) == "data/cache"
    assert str(Options(task="nlq", fv="egovlp", cache_dir="elsewhere").cache) == "elsewhere"
