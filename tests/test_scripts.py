"""Scripts of every model, run as a user runs them, on a small simulated data set."""

import numpy as np
import pytest

from tests.simulated import succeed
from utils.evaluation.predictions import read_predictions, read_scores

TINY = {
    "VSLNet": "--dim 16 --num_heads 2",
    "ReLER": "--hidden_dim 16 --bi_num_attention_heads 2 --conditioned_span_pred_num_heads 2 "
    "--v_intermediate_size 32 --intermediate_size 32 --max_v_l 60",
    "GroundNLQ": "--dim 16 --num_heads 2 --arch 1 1 1 0 2",
}


@pytest.mark.slow
@pytest.mark.parametrize("model", TINY)
def test_two_processes_tune_a_run_and_predict_what_one_predicts(simulated, tmp_path, model):
    tiny = f"{TINY[model]} --text_encoder minilm --epochs 1 --batch_size 32".split()
    joint, tuned = tmp_path / "joint", tmp_path / "tuned"

    def script(name, *arguments):
        return succeed(f"{model}/scripts/{name}.sh", *arguments, "--data_root", simulated)

    printed = script("train_naq", "cpu", "nlq", "egovlp", joint, "2.5", *tiny)
    assert "Rank@1" in printed and "queries evaluated" in printed
    script("finetune", "cpu,cpu", "nlq_v2", "egovlp", tuned, "0.0001", joint, *tiny)
    results = []
    for devices in ("cpu", "cpu,cpu"):
        file = tmp_path / "out" / f"{devices}.json"
        printed = script("infer", devices, "nlq_v2", "test", "egovlp", tuned, "--output", file)
        assert "no times" in printed and f"{file}: acceptable" in printed
        results.append(read_predictions(file))
        scores = np.array(read_scores(file, results[-1]))
        assert scores.shape[1] == 5 and (np.diff(scores) <= 0).all() and (scores[:, 0] > 0).all()
    alone, shared = results
    assert [prediction.key for prediction in shared] == [prediction.key for prediction in alone]
    np.testing.assert_allclose(*([p.windows for p in each] for each in results), atol=1e-3)
