"""The table of training recipes: hyperparameters of each model and stage, used by scripts."""

from typing import NamedTuple

from utils.base.errors import UserError


class Stage(NamedTuple):
    """Hyperparameters of a training."""

    epochs: int
    batch_size: int
    rate: float  # highest learning rate; an example if scripts take it as an argument
    warmup: float = 0.0  # epochs


# Narrations (with NLQ or alone), then NLQ with the weights of that; NLQ from scratch.
NAQ, TUNING, SCRATCH = "naq", "tuning", "scratch"
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
    """A row of the table as shell assignments."""
    if stage not in STAGES.get(model, {}):
        raise UserError(f"no recipe for stage '{stage}' of model '{model}'")
    row = STAGES[model][stage]
    values = row._asdict() | {"warmup_proportion": row.warmup / row.epochs}
    return "\n".join(f"{name.upper()}={value:.10g}" for name, value in values.items())
