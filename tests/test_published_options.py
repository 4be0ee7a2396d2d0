"""Every option of the published release is accepted by the program that stands for its own."""

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

import pytest

import ReLER.options
import VSLNet.options
from tests.simulated import succeed
from utils.base.errors import UserError
from utils.base.options import adopt, parse_options

GOLDEN = Path(__file__).parent / "golden" / "published_options.json"
DOCUMENTED = Path(__file__).parents[1] / "docs" / "from_published_code.md"
PUBLISHED = json.loads(GOLDEN.read_text())
PROGRAMS = {
    "VSLNet/main.py": VSLNet.options,
    "ReLER/ms_cm/train_ego4d_slowfast.py and inference_ego4d_slowfast.py": ReLER.options,
}
# What another value than the default has to be given together with.
TOGETHER = {
    "resume_opt": ["--resume", "x"],
    "resume_all": ["--resume", "x"],
    "num_heads": ["--dim", "15"],
    "dim": ["--num_heads", "3"],
    **{
        heads: ["--hidden_dim", "240"]
        for heads in ("bi_num_attention_heads", "conditioned_span_pred_num_heads")
    },
}
OTHER = {"int": "3", "float": "0.25", "str": "other", "store_true": None, "store_false": None}
CHOSEN = {
    "mode": "val",
    "split": "val",
    "predictor": "rnn",
    "hidden_dim": "512",
    "nar_rand_window_expansion_factor": "2.5",
    "remove_empty_queries_from": "val",
}
# Values that would change what is computed and that no published script sets.
REFUSED = {
    "start_epoch", "txt_drop_ratio", "hidden_size", "v_hidden_size", "bi_hidden_size",
    "hidden_act", "v_hidden_act", "optim_name", "numscale_list", "use_sw", "sw_len_ratio", "use_vs",
    "vs_prob", "ctx_mode", "position_embedding", "use_txt_pos", "enc_layers", "cross_text_use_ori",
    "NPM_score_norm", "conditioned_span_pred_predictor",
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


def names_of(field):
    return (field.name, *field.metadata["aliases"])


@pytest.mark.parametrize(("module", "option"), list(cases()))
def test_defaults_are_the_published_ones_or_documented(module, option):
    if not is_published_default(module, option["name"], option["default"]):
        row = f"| `{option['name']}` | {module.__package__} | {in_words(option)} |"
        assert row in DOCUMENTED.read_text()


def in_words(option):
    if option["kind"] == "store_true":
        return "off"
    return "none" if option["default"] is None else f"{option['default']}".removesuffix(".0")


def is_published_default(module, option, default):
    """Whether an option left out has the published default, given where there is one."""
    if default is not None and default is not False:
        try:
            return parse(module, f"{option}={default}") == parse(module)
        except UserError:
            return False
    name = option.removeprefix("--")
    field = next((f for f in dataclasses.fields(module.Options) if name in names_of(f)), None)
    return field is None or not getattr(parse(module), field.name)


def fields(*kinds):
    """Options of a model whose values are of one of the kinds."""
    for module in PROGRAMS.values():
        for field in dataclasses.fields(module.Options):
            if {field.type, *get_args(field.type)} & set(kinds):
                yield pytest.param(module, field.name, id=f"{module.__package__} {field.name}")


@pytest.mark.parametrize(("module", "name"), list(fields(int, float)))
def test_numbers_that_make_no_sense_are_refused(module, name, capsys):
    for value in ("nan", "inf", "-inf", "-3"):
        with pytest.raises((UserError, SystemExit)) as refused:
            parse(module, f"--{name}={value}")
        message = str(refused.value) if refused.type is UserError else capsys.readouterr().err
        assert re.search(rf"--{name}( must be in |.*: invalid int value)", message)
        with pytest.raises(UserError, match=f"opt.json: --{name} must be "):
            adopt(parse(module), {name: float(value)}, "opt.json")


@pytest.mark.parametrize(("module", "name"), list(fields(int)))
def test_whole_numbers_have_a_bound(module, name):
    with pytest.raises(UserError, match=rf"--{name} must be in \["):
        parse(module, f"--{name}={10**12}")


@pytest.mark.parametrize(("module", "name"), list(fields(int, float, str, bool)))
def test_values_of_another_type_are_refused(module, name):
    with pytest.raises(UserError, match=f"opt.json: --{name} must be "):
        adopt(parse(module), {name: {}}, "opt.json")


@pytest.mark.parametrize(("name", "value"), [("task", "../nlq"), ("fv", "a/b")])
def test_names_of_folders_are_plain(name, value):
    with pytest.raises(UserError, match=f"--{name} must be a plain name, is '{value}'"):
        parse(VSLNet.options, f"--{name}={value}")


@pytest.mark.parametrize("program", list(PUBLISHED)[2:])
def test_small_programs_have_their_published_options(program):
    page = succeed(program, "--help")
    for option in PUBLISHED[program]:
        assert option["name"] in page
