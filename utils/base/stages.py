"""The table of training recipes: what each model trains with in each stage. Scripts ask it."""

from typing import NamedTuple

from utils.base.errors import UserError


class Stage(NamedTuple):
    """One training; both ways to NaQ are NAQ (joint, or narrations alone) and then TUNING."""

    epochs: int
    batch_size: int
    rate: float  # highest learning rate; an example where scripts are given one
    warmup: float = 0.0  # epochs of rising rate, out of `epochs`


NAQ, TUNING, SCRATCH = "naq", "tuning", "scratch"  # narrations (and NLQ), then NLQ; NLQ alone
STAGES = {
    "VSLNet": {
        NAQ: Stage(200, 2048, 0.001, warmup=5),
        TUNING: Stage(200, 32, 0.0001, warmup=5),
        SCRATCH: Stage(200, 32, 0.001),
    },
    "ReLER": {
        NAQ: Stage(200, 768, 0.00015),
        TUNING: Stage(200, 32, 0.00001),
        SCRATCH: Stage(200, 32, 0.0001),
    },
    "GroundNLQ": {
        NAQ: Stage(10, 16, 0.0002, warmup=4),
        TUNING: Stage(10, 2, 0.00005, warmup=4),
        SCRATCH: Stage(13, 4, 0.0001, warmup=5),
    },
}


def shell_variables(model: str, stage: str) -> str:
    """A row of the table as shell assignments, for the entry points."""
    if stage not in STAGES.get(model, {}):
        raise UserError(f"no recipe for stage '{stage}' of model '{model}'")
    row = STAGES[model][stage]
    values = row._asdict() | {"warmup_proportion": row.warmup / row.epochs}
    return "\n".join(f"{name.upper()}={value:.10g}" for name, value in values.items())
