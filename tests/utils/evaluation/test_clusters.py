"""The ensemble published with GroundNLQ."""

import json

import numpy as np

from utils.ensemble_predictions import main
from utils.evaluation.clusters import cluster_means, merge_clusters
from utils.evaluation.predictions import read_predictions, write_results


def test_published_cases(golden):
    cases = json.loads((golden / "groundnlq" / "ensemble_groundnlq.json").read_text())["cases"]
    for case in cases:
        files = np.full((3, 5, 3), np.nan)
        for file, name in zip(files, ("first", "second", "third"), strict=True):
            file[: len(case[name])] = case[name]
        means = cluster_means(files[:, 0])
        np.testing.assert_allclose(means, np.array(case["top1"])[:, :3], atol=1e-9)
        merged, scores = merge_clusters(files[None, ..., :2], files[None, ..., 2])
        np.testing.assert_allclose(merged[0], case["windows"], atol=1e-9)
        assert (np.diff(scores[0]) <= 0).all()


def test_the_program_merges_so_on_request(tmp_path):
    keys = [("clip", "a", 0)]
    starts = np.array([[0.0, 10, 20, 30, 40], [1.0, 50, 60, 70, 80]])
    files = [str(tmp_path / f"{n}.json") for n in range(2)]
    for file, start in zip(files, starts, strict=True):
        windows = np.stack((start, start + 4), 1)[None]
        write_results(file, keys, windows, np.array([[0.9, 0.5, 0.4, 0.3, 0.2]]))
    out = str(tmp_path / "out.json")
    main(["--predictions", *files, "--method", "clusters", "--output", out])
    starts = [start for start, _ in read_predictions(out)[0].windows]
    assert starts == [0, 10, 50, 20, 60]
