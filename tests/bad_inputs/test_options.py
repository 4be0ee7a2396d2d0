"""Options that are wrong: each ends in one line that says what is wrong, and exit code 2."""

import re

import pytest

from tests.bad_inputs import world
from tests.bad_inputs.world import RELER_RUN

NAQ, PACK = "utils/create_naq_dataset.py", "utils/prepare_features.py"
ANALYSE, EVALUATE = "utils/analyse_predictions.py", "utils/evaluate_ego4d_nlq.py"
ENSEMBLE, VIEW = "utils/ensemble_predictions.py", "utils/view_predictions.py"
SIMULATE, ASK = "utils/simulate_dataset.py tiny", "utils/ask.py"
VSLNET, RELER = "VSLNet/main.py", "ReLER/main.py"
FETCH, EXTRACT = "utils/download_features.py", "utils/extract_features.py"
COMPARE = "utils/compare_runs.py"
TWO = "--videos clips.json --type clip videomae --output_dir"
NO_ADDRESSES = ("file:///etc/passwd", "http://", "/local", "http://a b/c", "http://a/ü")
CUT = "--from_video_features features/egovlp"

CASES = [
    # of data
    ("utils/prepare_ego4d_dataset.py", "--output x", "unrecognized arguments: --output x"),
    (
        "utils/prepare_ego4d_dataset.py",
        "--input_test_split none.json",
        "--input_test_split none.json: no such file",
    ),
    ("utils/convert_tacos.py", "--input_dir manifest.json", "manifest.json: holds no split"),
    (NAQ, "--features x", "either --type and --em_version, or --features"),
    (f"{NAQ} own", "--clip_seconds 0", r"--clip_seconds: must be in \[1, inf\), is 0"),
    ("utils/subsample_clips.py", "--shares 120", r"--shares: must be in \[0, 100\], is 120"),
    (SIMULATE, "--features resnet", "--features resnet: must be of slowfast"),
    (SIMULATE, "--clip_seconds 90 60", "--clip_seconds"),
    (SIMULATE, "--queries -1", "--queries"),
    (SIMULATE, "--annotations nowhere.json", "nowhere.json"),
    # of features
    (FETCH, "--feature_types slowfast", "slowfast"),
    (FETCH, "--feature_types slowfast,clip", "unknown feature type 'slowfast,clip'"),
    (FETCH, "--url egovlp=http://a/b", "'egovlp' is not among"),
    (FETCH, "--url http://a/b", "is not TYPE=URL"),
    (FETCH, "--feature_types ../x --url ../x=http://a/b", "can't name a file"),
    *((FETCH, ["--url", f"clip={url}"], "is not an address") for url in NO_ADDRESSES),
    (EXTRACT, f"{TWO} one", "clip and videomae features need a folder each"),
    (EXTRACT, f"{TWO} one ./one", "clip and videomae features need a folder each"),
    (EXTRACT, f"{TWO} one two --encoder a b c", "names 3 image encoders for clip and videomae"),
    (EXTRACT, f"{TWO} one two --like .", "--like compares features of one --type"),
    (EXTRACT, "--videos clips.json --output_dir manifest.json", "manifest.json is not a folder"),
    (EXTRACT, "--videos clips.json --output_dir /proc/features", "can't write into /proc"),
    (PACK, "--features ../egovlp", "plain folder names"),
    (PACK, "--packed", "--packed belongs to --from_video_features"),
    (PACK, CUT, "needs --annotations"),
    (PACK, f"--features x y {CUT}", "give --features one name"),
    (PACK, f"{CUT} --annotations nlq_train.json", "need another name than egovlp"),
    (PACK, "--stride 0", "stride"),
    (PACK, "--frame_rate nan", "frame_rate"),
    # of models
    (VSLNET, "--num_heads 3", "--dim 8 must be a multiple of --num_heads 3"),
    (f"{VSLNET} train", "--fv nothing", "features/nothing"),
    (f"{VSLNET} train", "--init_from nowhere", "nowhere: no such checkpoint"),
    (f"{VSLNET} train", "--zeroshot_subsample_clips nowhere", "nowhere: no such list of clip uids"),
    (f"{VSLNET} train", "--padding published --compile", "--padding masked"),
    (VSLNET, "--video_feature_dim 2304", "2304"),
    (f"{RELER} train", "--fv clip", "name another feature"),
    (f"{RELER} train", "--resume_all", "need --.* CHECKPOINT"),
    (f"{RELER} train", "--hidden_dim 9", "--hidden_dim 9 must be a multiple"),
    # of searches
    (ASK, ["--query", " ? "], "the question is empty"),
    (ASK, "--sheet sheet.png", "give --video"),
    (ASK, "--video nowhere.mp4", "no such video"),
    (ASK, "--features a.pt b.pt", "one file each; 2 given"),
    (ASK, "--features features/glove.840B.4d.txt", "glove.840B.4d.txt: "),
    (ASK, f"--checkpoint {RELER_RUN}", "one file each; 1 given"),
    (ASK, "--checkpoint own", r"no checkpoint"),
    (ASK, "--top 0", r"--top: must be in \[1, 1000\], is 0"),
    (ASK, "--top 99999999999999999999", r"--top: must be in \[1, 1000\]"),
    (f"{NAQ} own", "--type nlq", "either --type and --em_version, or --features"),
    (ASK, "--clip_seconds -1", "--clip_seconds"),
    (ASK, "--device gpu", "--device gpu is not available here"),
    # of predictions and runs
    (COMPARE, "runs", "is not LABEL=FOLDER"),
    (COMPARE, "a=own", "0 files metrics.jsonl"),
    (ANALYSE, "--samples 0", r"--samples: must be in \[1, 1e6\], is 0"),
    (ANALYSE, "--predictions x.json", "is not NAME=FILE"),
    (EVALUATE, "--thresholds 1.2", r"--thresholds: must be in \[0, 1\), is 1.2"),
    (EVALUATE, "--topK 0", r"--topK: must be in \[1, 1e9\], is 0"),
    (EVALUATE, "--train_annotations x", "--train_annotations needs --breakdown"),
    (ENSEMBLE, "--weights 1", "1 --weights for 2 files"),
    (ENSEMBLE, "--weights 1 nan", r"--weights: must be in \(0, inf\), is nan"),
    (ENSEMBLE, "--nms_threshold 2", r"--nms_threshold: must be in \[0, 1\], is 2"),
    (VIEW, "--videos none", "no such folder"),
    (VIEW, "--output page.txt", "page.txt: browsers need a name that ends with .html"),
    (VIEW, "--predictions none.json", "none.json: no such file"),
]


@pytest.mark.parametrize(("program", "options", "message"), CASES)
def test_a_wrong_option_ends_in_one_line(data, program, options, message):
    words = options.split() if isinstance(options, str) else options
    line = world.run(program, data, *words)
    assert line and re.search(message, line), line
