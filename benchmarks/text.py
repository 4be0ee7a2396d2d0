"""What a step pays for the text of its batch: encoding it in the loop, or reading the store.

Neither gives anything to the step, whose made-up text must be the same for the versions it
compares. The encoders have the published ones' shapes and random weights.
"""

import numpy as np
import torch
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModelWithProjection

from benchmarks.timing import Work
from utils.features.tokens import TokenStore

CLIP_CONTEXT = 77  # the published code pads every sentence to it
SENTENCES = 10_000


def bert_in_the_loop(batch: int, tokens: int) -> Work:
    """BERT base in training mode, with its dropout, as published for VSLNet."""
    model = BertModel(BertConfig()).train()
    numbers = torch.randint(1000, 30_000, (batch, tokens))
    return torch.no_grad()(lambda: model(input_ids=numbers))


def clip_in_the_loop(batch: int) -> Work:
    """CLIP ViT-B/16's text tower in evaluation mode, as published for ReLER."""
    config = CLIPTextConfig(projection_dim=512)
    model = CLIPTextModelWithProjection(config).eval()
    numbers = torch.randint(1000, 40_000, (batch, CLIP_CONTEXT))
    numbers[:, -1] = config.eos_token_id
    return torch.no_grad()(lambda: model(input_ids=numbers))


def stored(width: int, batch: int, tokens: int) -> Work:
    """Our store, with sentences drawn anew for each batch."""
    draw = np.random.default_rng(0)
    features = draw.standard_normal((SENTENCES * tokens, width), np.float32).astype(np.float16)
    lengths = np.full(SENTENCES, tokens)
    store = TokenStore(torch.from_numpy(features), np.arange(SENTENCES + 1) * tokens, lengths)
    return lambda: store.gather(draw.integers(0, SENTENCES, batch))
