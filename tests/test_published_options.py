"""Every option of the published release is accepted by the program that stands for its own."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

import ReLER.options
import VSLNet.options
from tests.simulated import refuse
from utils.base.errors import UserError
from utils.base.options import parse_options

GOLDEN = Path(__file__).parent / "golden" / "published_options.json"
DOCUMENTED = Path(__file__).parents[1] / "docs" / "from_published_code.md"
PUBLISHED = json.loads(GOLDEN.read_text())
PROGRAMS = {
    "VSLNet/main.py": VSLNet.options,
    "ReLER/ms_cm/train_ego4d_slowfast.py and inference_ego4d_slowfast.py": ReLER.options,
}
# Values that mean the same here, beside the published one.
UNSET = ("", None, -1, -1.0)
# What another value than the default has to be given together with.
TOGETHER = {
    "resume_opt": ["--resume", "x"],
    "resume_all": ["--resume", "x"],
    "eval_id": ["--model_dir", "x"],
    "num_heads": ["--dim", "15"],
    "dim": ["--num_heads", "3"],
}
OTHER = {"int": "3", "float": "0.25", "str": "other", "store_true": None, "store_false": None}
CHOSEN = {
    "mode": "val",
    "split": "val",
    "predictor": "rnn",
    "conditioned_span_pred_predictor": "justfc",
    "position_embedding": "learned",
    "ctx_mode": "tef",
    "eval_id": "7",
    "nar_rand_window_expansion_factor": "2.5",
    "remove_empty_queries_from": "val",
    "NPM_score_norm": "1",
}
# Values that would change what is computed and that no published script sets.
REFUSED = {
    "start_epoch", "txt_drop_ratio", "hidden_size", "v_hidden_size", "bi_hidden_size",
    "hidden_act", "v_hidden_act", "optim_name", "numscale_list", "allscaletopk", "use_sw",
    "sw_len_ratio", "use_vs", "vs_prob", "preds_list",
}  # fmt: skip


def parse(module, *arguments):
    return parse_options(
        module.Options, "", ["--task", "t", "--fv", "f", *arguments], ignored=module.IGNORED
    )


def cases():
    for program, module in PROGRAMS.items():
        for option in PUBLISHED[program]:
            yield pytest.param(module, option, id=f"{module.__package__} {option['name']}")


@pytest.mark.parametrize(("module", "option"), list(cases()))
def test_every_published_name_is_accepted(module, option):
    name = option["name"].removeprefix("--")
    value = CHOSEN.get(name, OTHER[option["kind"]])
    arguments = [option["name"]] + ([] if value is None else [value])
    arguments += TOGETHER.get(name, [])
    if name in REFUSED:
        with pytest.raises(UserError, match=rf"--{name} .* is not supported: "):
            parse(module, *arguments)
    else:
        assert parse(module, *arguments)
    default = option["default"]
    if option["kind"] in ("int", "float", "str") and default not in (None, ""):
        words = [str(default)] if not isinstance(default, list) else list(map(str, default))
        if name not in REFUSED and name not in ("task", "fv"):
            assert parse(module, option["name"], *words)


def field_of(module, name):
    for field in dataclasses.fields(module.Options):
        if name in (field.name, *field.metadata["aliases"]):
            return field
    return None


@pytest.mark.parametrize(("module", "option"), list(cases()))
def test_defaults_are_the_published_ones_or_documented(module, option):
    field = field_of(module, option["name"].removeprefix("--"))
    if field is None:
        assert any(
            published.name == option["name"].removeprefix("--") for published in module.IGNORED
        )
        return
    ours = field.default
    if ours is dataclasses.MISSING:
        ours = None if field.default_factory is dataclasses.MISSING else field.default_factory()
    published = option["default"]
    same = ours == published or (ours in (None, False, [], 1.0) and published in (*UNSET, False))
    if isinstance(ours, str) and isinstance(published, str):
        same = Path(ours) == Path(published)
    if not same:
        row = rf"\| `{option['name']}` \| {module.__package__} \|"
        assert re.search(row, DOCUMENTED.read_text()), f"{row}: {published} is {ours} here"


@pytest.mark.parametrize("module", PROGRAMS.values(), ids=lambda module: module.__package__)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-3", "1e300"])
def test_numbers_that_make_no_sense_are_refused(module, value):
    for field in dataclasses.fields(module.Options):
        if float not in (field.type, *getattr(field.type, "__args__", ())):
            continue
        if value == "1e300" and "inf" in field.metadata["within"]:
            continue
        with pytest.raises(UserError, match=f"--{field.name} must be in "):
            parse(module, f"--{field.name}={value}")


@pytest.mark.parametrize(
    ("module", "name", "value"),
    [
        (VSLNet.options, "dim", 10**9),
        (VSLNet.options, "max_pos_len", 10**9),
        (VSLNet.options, "num_extra_attn_blocks", 100_000),
        (VSLNet.options, "num_heads", 0),
        (VSLNet.options, "clip_norm", 0),
        (VSLNet.options, "seed", -1),
        (VSLNet.options, "seed", 2**32),
        (VSLNet.options, "extend", -50),
        (VSLNet.options, "epochs", 0),
        (VSLNet.options, "batch_size", 0),
        (ReLER.options, "hidden_dim", 10**9),
        (ReLER.options, "num_cross_encoder_layers", 100_000),
        (ReLER.options, "n_input_proj", 10**6),
        (ReLER.options, "v_intermediate_size", 10**9),
        (ReLER.options, "max_v_l", 10**9),
        (ReLER.options, "temperature", 0),
    ],
)
def test_absurd_numbers_are_refused(module, name, value):
    with pytest.raises(UserError, match=rf"--{name} must be in .*, is {value}"):
        parse(module, f"--{name}", str(value))


def test_as_a_user_meets_it():
    wide = refuse("VSLNet/main.py", "--task", "t", "--fv", "f", "--dim", "1000000000")
    assert wide == "error: --dim must be in [1, 8192], is 1000000000"
    list_of_scales = ("--numscale_list", "2", "4")
    said = refuse("ReLER/main.py", "--task", "t", "--fv", "f", *list_of_scales)
    assert "clips are cut into 2, 3, 4, 5, 6 parts" in said
