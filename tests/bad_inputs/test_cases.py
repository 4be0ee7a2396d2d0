"""Bad inputs that users meet: each ends in one line that says what is wrong, and exit code 2."""

import re
from typing import NamedTuple

import pytest
import torch

from tests.bad_inputs import world
from tests.bad_inputs.damages import (
    CHALLENGE,
    CLIP,
    Damage,
    changed,
    checkpoint,
    cut_off,
    edited,
    gone,
    of_another_split,
    of_vslnet,
    packed,
    packed_and_cut_off,
    released_with,
    renamed,
    tensor,
    untouched,
    with_option,
    without_times,
    written,
)
from tests.bad_inputs.world import (
    PREPARED,
    RELER_RUN,
    ROWS,
    VSLNET_RUN,
    WIDTH,
    WORDS_RUN,
    Hostile,
)
from utils.data.annotations import JSON_LINES


class Case(NamedTuple):
    """A bad input, the program that meets it, and what its line of error must match."""

    what: str
    program: str  # of world.COMMANDS
    damage: Damage
    message: str


TRAIN, VAL = "nlq_train.json", f"{PREPARED}/val.json"
CARD = "features/egovlp/feature_card.json"
VIDEO = ("videos", 0)
QUERY = (*VIDEO, "clips", 0, "annotations", 0, "language_queries", 0)
TIMES = ("results", 0, "predicted_times")
PREPARE, NAQ = "utils/prepare_ego4d_dataset.py", "utils/create_naq_dataset.py"
PACK, FEW = "utils/prepare_features.py", "VSLNet/main.py train few"
EVALUATE, VALIDATE = "utils/evaluate_ego4d_nlq.py", "utils/validate_submission.py"
ENSEMBLE, VIDEOS = "utils/ensemble_predictions.py", "utils/extract_features.py"
COMPARE = "utils/compare_runs.py"
VSLNET, RELER = "VSLNet/main.py", "ReLER/main.py"
NARRATIONS, OTHER_NARRATIONS = world.NARRATIONS, world.OTHER_NARRATIONS
PASS = ("train0", "narration_pass_1")

OTHER_T1 = world.annotations("train")["videos"][0]
OTHER_T1["clips"][0]["video_end_sec"] = 30.0
METRICS = f"{VSLNET_RUN}/metrics.jsonl"

CASES = [
    # annotations
    Case("annotations are missing", PREPARE, gone(TRAIN), "nlq_train.json: no such file"),
    Case("annotations are cut off", PREPARE, cut_off(TRAIN), "nlq_train.json: .*cut off"),
    Case("annotations in UTF-16", PREPARE, written(TRAIN, '{"videos": []}'.encode("utf-16")),
         "nlq_train.json: is text in UTF-16; save it as UTF-8"),
    Case("annotations are a web page", PREPARE, written(TRAIN, b"<html>"), "nlq_train.json: "),
    Case("a video without its name", PREPARE, edited(TRAIN, *VIDEO, "video_uid"), "video_uid"),
    Case("a clip named `../x`", PREPARE,
         edited(TRAIN, *VIDEO, "clips", 0, "clip_uid", value="../x"), r"clip_uid.*'\.\./x'"),
    Case("a clip ends before it starts", PREPARE,
         edited(TRAIN, *VIDEO, "clips", 0, "video_end_sec", value=1.0), "ends before it starts"),
    Case("a time is text", PREPARE, edited(TRAIN, *QUERY, "clip_start_sec", value="soon"),
         r"language_queries\[0\].*clip_start_sec"),
    Case("a time is NaN", PREPARE, edited(TRAIN, *QUERY, "clip_end_sec", value=float("nan")),
         "nlq_train.json"),
    Case("a window without its end", PREPARE, edited(TRAIN, *QUERY, "clip_end_sec"),
         "clip_end_sec"),
    Case("TACoS without sentences", "utils/convert_tacos.py",
         edited("tacos/val.json", "s1-d1.avi", "sentences"), "val.json: .*sentences"),
    Case("TACoS with fewer sentences than windows", "utils/convert_tacos.py",
         edited("tacos/val.json", "s1-d1.avi", "sentences", value=["one"]),
         "val.json: s1-d1.avi: timestamps and sentences differ in"),
    Case("a clip shorter than a feature row", PREPARE,
         edited(TRAIN, *VIDEO, "clips", 0, "video_end_sec", value=10.5),
         "clip t1 is shorter than one feature row"),
    Case("a clip of two durations", PREPARE, edited(TRAIN, "videos", 1, value=OTHER_T1),
         "clip t1 is listed with two durations"),
    # narrations
    Case("narrations are missing", NAQ, gone("egoclip.csv"), "egoclip.csv: no such file"),
    Case("narrations in UTF-16", NAQ, written("egoclip.csv", NARRATIONS.decode().encode("utf-16")),
         "egoclip.csv: is text in UTF-16; save it as UTF-8"),
    Case("the annotations that narrations are joined with are missing", NAQ, gone(TRAIN),
         "nlq_train.json: no such file"),
    Case("a clip that has other bounds in another file", NAQ,
         edited("moments_train.json", "videos", 0, value=OTHER_T1),
         "moments.*: clip t1 has two different bounds"),
    Case("narrations joined with JSON lines", NAQ, edited(TRAIN, "version", value=JSON_LINES),
         "nlq_train.json: made of JSON lines"),
    Case("narrations lack a column", NAQ,
         written("egoclip.csv", NARRATIONS.replace(b"\tclip_end\t", b"\t")), "column clip_end"),
    Case("narrations with commas", NAQ,
         written("egoclip.csv", NARRATIONS.replace(b"\t", b",")), "not separated by tabs"),
    Case("Ego4D's narrations are cut off", f"{NAQ} ego4d", cut_off("narrations/train0.ego4d"),
         "train0.ego4d: not valid JSON .*cut off"),
    Case("a narration's time is text", f"{NAQ} ego4d",
         edited("narrations/train0.ego4d", *PASS, "narrations", 0, "timestamp_sec", value="soon"),
         r"train0.ego4d: video train0: .*narration_pass_1.narrations\[0\].timestamp_sec"),
    Case("Ego4D's narrations given as Ego-Exo4D's", f"{NAQ} egoexo4d",
         written("narrations/train0.egoexo4d", OTHER_NARRATIONS["ego4d"]),
         "train0.egoexo4d: .*annotations"),
    Case("a take is an object", f"{NAQ} egoexo4d",
         edited("narrations/train0.egoexo4d", "annotations", "train0", value={}),
         "train0.egoexo4d: take train0: "),
    Case("EPIC-KITCHENS lacks a column", f"{NAQ} epic",
         written("narrations/train0.epic", b"video_id,narration\na,b\n"),
         "train0.epic: column start_timestamp, stop_timestamp is missing"),
    Case("a text with a comma", f"{NAQ} csv",
         written("narrations/train0.csv", b"video,start,end,text\ntrain0,1,2,cuts, eats\n"),
         "train0.csv: line 2 has 5 fields, the header 4"),
    Case("a quote that is not closed", f"{NAQ} csv",
         written("narrations/train0.csv", b'video,start,end,text\ntrain0,1,2,"cuts\n' * 9),
         "train0.csv: line .*; is a quote not closed?"),
    Case("subtitles in UTF-16", f"{NAQ} srt",
         written("narrations/train0.srt", "1\n00:01 --> 00:02\na".encode("utf-16")),
         "train0.srt: is text in UTF-16; save it as UTF-8"),
    Case("a video given as subtitles", f"{NAQ} vtt", written("narrations/train0.vtt", bytes(2**20)),
         r"train0.vtt \(--format vtt, .*: 1\): none of its 0 narrations can be read"),
    Case("narrations of other videos than the features", f"{NAQ} own",
         written("own/feature_shapes.json", b'{"train0": 60, "x": 60}'),
         r"own: 1 of its 2 videos \(train0, x\) have narrations, two are needed"),
    Case("own videos without a list of lengths", f"{NAQ} own", gone("own/feature_shapes.json"),
         "feature_shapes.json: no such file"),
    # prepared data sets and clip lists
    Case("the data set was not prepared", VSLNET, gone(VAL),
         "val.json: no such file; make it with utils/prepare_ego4d_dataset.py"),
    Case("a prepared clip lacks a key", VSLNET, edited(VAL, "v1", "sentences"), "v1.*sentences"),
    Case("fewer windows than queries", RELER,
         edited(VAL, "v1", "exact_times", value=[[1.0, 2.0]]), "v1: 2 sentences but 1 exact_times"),
    Case("a prepared split is empty", VSLNET, written(VAL, b"{}"), "no queries in this split"),
    Case("a clip list of numbers", FEW, edited("clips.json", 0, value=1), "clips.json: "),
    Case("a clip list that is no text", FEW, written("clips.json", b"\xff\xfe"), "clips.json: "),
    # features
    Case("no folder of features", PACK, renamed("features/egovlp", "features/other"),
         "features/egovlp: no folder of .pt files"),
    Case("a clip has no features", VSLNET, gone(CLIP), r"v1 \(egovlp\); .*--allow_missing"),
    Case("features are cut off", PACK, cut_off(CLIP), "v1.pt: damaged or cut off"),
    Case("features that would run a command", PACK, tensor(Hostile()), "v1.pt: holds a posix"),
    Case("features with NaN", VSLNET, tensor(torch.full((ROWS, WIDTH), torch.nan)),
         "v1.pt: NaN or infinite"),
    Case("features of another width", PACK, tensor(torch.ones(ROWS, 5)), "v1.pt: .*5 wide"),
    Case("features of one dimension", PACK, tensor(torch.ones(ROWS)), "v1.pt: .*(rows, width)"),
    Case("features without rows", PACK, tensor(torch.ones(0, WIDTH)), "v1.pt: .*empty"),
    Case("sparse features", PACK, tensor(torch.ones(ROWS, WIDTH).to_sparse()), "v1.pt: .*dense"),
    Case("features of fewer numbers than their shape", VSLNET,
         tensor(torch.ones(1, WIDTH).expand(ROWS, -1)), "v1.pt: must be a dense tensor"),
    Case("fewer rows than listed", PACK, tensor(torch.ones(9, WIDTH)), "v1.pt: has 9 rows"),
    Case("features in a dict", PACK, tensor({"x": torch.ones(9, WIDTH)}), "v1.pt: .*tensor"),
    Case("a packed file is cut off", VSLNET, packed_and_cut_off, "egovlp.h5: .*cut off"),
    Case("an HDF5 file of another kind", VSLNET, packed, "egovlp.h5: "),
    Case("a card with another width", PACK, written(CARD, b'{"width": 7}'), "card says 7"),
    Case("a card that is a list", PACK, written(CARD, b"[1]"), "feature_card.json"),
    Case("lengths that are text", PACK,
         edited("features/egovlp/feature_shapes.json", "v1", value="x"), "feature_shapes.json"),
    # checkpoints, and what lies beside them
    Case("no checkpoint", VSLNET, lambda root: world.checkpoint(root / VSLNET_RUN).unlink(),
         r"no checkpoint \(\*\.t7\)"),
    Case("a checkpoint is cut off", VSLNET,
         lambda root: cut_off(world.checkpoint(root / VSLNET_RUN))(root), "vslnet_1.t7: .*cut off"),
    Case("a VSLNet checkpoint that would run a command", VSLNET,
         checkpoint(VSLNET_RUN, lambda state: {**state, "more": Hostile()}), "holds a posix"),
    Case("a ReLER checkpoint that would run a command", RELER,
         checkpoint(RELER_RUN, lambda content: {**content, "opt": Hostile()}), "holds a posix"),
    Case("a checkpoint of another shape", VSLNET,
         checkpoint(VSLNET_RUN, lambda state: changed(state, lambda value: value[:, :1])),
         "vslnet_1.t7: does not fit this model: .* this model has"),
    Case("a checkpoint with NaN", RELER,
         checkpoint(RELER_RUN, lambda content: {
             **content, "model": changed(content["model"], lambda value: value * torch.nan)}),
         "model_1.t7: .*NaN"),
    Case("a VSLNet checkpoint given to ReLER", RELER, of_vslnet, "not a ReLER checkpoint"),
    Case("a checkpoint of a shape that is not supported", RELER,
         checkpoint(RELER_RUN, lambda content: with_option(content, "enc_layers", 2)),
         "model_1.t7: --enc_layers 2 is not supported"),
    Case("options that are text", VSLNET, edited(f"{VSLNET_RUN}/configs.json", "dim", value="x"),
         "--dim must be `int`, got `str`"),
    Case("options nested too deep", "GroundNLQ/main.py",
         released_with(b"[" * 3000), "not a file of options"),
    Case("options with a date that does not exist", "GroundNLQ/main.py",
         released_with(b"dim: 2001-99-99"), "not a file of options"),
    Case("a text encoder without a name", VSLNET, written(f"{VSLNET_RUN}/text.json", b"[1]"),
         "text.json"),
    Case("another text encoder than in training", VSLNET,
         edited(f"{VSLNET_RUN}/text.json", "hash", value="0" * 20),
         "trained with the text encoder"),
    Case("a vocabulary of lists", "VSLNet/main.py rnn",
         edited(f"{WORDS_RUN}/text.json", "words", value=[["a"]]), "text.json"),
    Case("word vectors of another width", "VSLNet/main.py train rnn",
         written("features/glove.840B.4d.txt", b"the 1 2\ncup 3 4\n"), "glove.840B.4d.txt"),
    Case("an encoder folder without weights", VSLNET, gone("bert/model.safetensors"), "bert"),
    Case("an encoder folder whose weights are cut off", VSLNET, cut_off("bert/model.safetensors"),
         "bert"),
    Case("encoder weights that are a pointer of git-lfs", VSLNET,
         written("bert/model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
         "git lfs pull"),
    Case("an encoder whose width is text", VSLNET, edited("bert/config.json", "hidden_size",
         value="x"), "config.json: .*hidden_size"),
    Case("an encoder of a million layers", VSLNET, edited("bert/config.json", "num_hidden_layers",
         value=10**6), "config.json: .*num_hidden_layers"),
    Case("an encoder folder without a tokenizer", VSLNET, gone("bert/tokenizer.json"), "bert"),
    Case("a run without evaluations", COMPARE, written(METRICS, b""), "no evaluation in it yet"),
    Case("evaluations that are cut off", COMPARE, written(METRICS, b'{"R@1'),
         "not a training run's evaluations"),
    # challenge files
    Case("a challenge file is not JSON", EVALUATE, written(CHALLENGE, b"clip,0,1\n"),
         "challenge.json: not valid JSON"),
    Case("a challenge file lacks queries", VALIDATE, edited(CHALLENGE, "results", 0),
         r"query missing \(1\)"),
    Case("a challenge file of another split", EVALUATE, of_another_split,
         "of another split or version"),
    Case("a predicted time is NaN", EVALUATE, edited(CHALLENGE, *TIMES, 0, value=[float("nan"), 1]),
         "challenge.json: "),
    Case("a predicted time is text", EVALUATE, edited(CHALLENGE, *TIMES, 0, value=["1", 2.0]),
         r"results\[0\].predicted_times\[0\]"),
    Case("four windows, not five", VALIDATE, edited(CHALLENGE, *TIMES, 4), r"not 5 windows \(1\)"),
    Case("a query is predicted twice", ENSEMBLE, edited(CHALLENGE, "results", 1, "query_idx",
         value=0), "the same query as"),
    Case("scores of other predictions", ENSEMBLE,
         edited(CHALLENGE, "results", 0, "predicted_times", 0, value=[0.5, 0.75]), "scores"),
    Case("scores below 0", ENSEMBLE, edited("challenge_scores.json", "scores", 0, 4, value=-1),
         "challenge.json.*: scores below 0"),
    Case("predictions of other queries", ENSEMBLE,
         edited("challenge_2.json", "results", 0, "query_idx", value=7),
         r"2 queries are in only one of .*\(for one clip v1, annotation av1, query"),
    Case("predictions of no query", ENSEMBLE, edited(CHALLENGE, "results", value=[]),
         "challenge.json: has no queries"),
    Case("ground truth without times", EVALUATE, without_times, "its 4 queries have no times"),
    # videos, downloads, options
    Case("a video is cut off", VIDEOS, written("videos/a.mp4", b"\0\0\0\x20ftypisom"),
         "1 of 1 videos could not be read"),
    Case("no folder of videos", VIDEOS, untouched, "no such video file or folder"),
    Case("a manifest without addresses", "utils/download_features.py",
         edited("manifest.json", "features", "egovlp", "parts", 0, "url"), "manifest.json"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_a_bad_input_ends_in_one_line(data, case):
    case.damage(data)
    line = world.run(case.program, data)
    assert re.search(case.message, line), line


def test_a_published_checkpoint_that_names_a_device_is_read(data):
    device = torch.device("cuda:0")
    checkpoint(RELER_RUN, lambda content: with_option(content, "device", device))(data)
    assert world.run(RELER, data) is None


def test_a_clip_without_features_is_left_out(data):
    (data / "features/egovlp/t1.pt").unlink()
    (data / "features/clip/t2.pt").unlink()
    assert world.run("VSLNet/main.py train", data, "--restart") is None
    line = world.run("ReLER/main.py train", data, "--restart")
    assert "2 clips with 4 of 4 queries lack features: t1 (egovlp), t2 (clip); nothing is" in line
    (data / CLIP).unlink()
    assert world.run(VSLNET, data, "--allow_missing") is None


def test_whole_inputs_are_read(data):
    """Else programs could refuse everything, and the cases would show nothing."""
    for program in set(world.COMMANDS) - {VIDEOS}:
        restart = ["--restart"] if "train" in program else []
        assert world.run(program, data, *restart) is None, program
