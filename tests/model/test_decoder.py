import torch

from headrace.model import DecoderConfig
from headrace.model.aux import decoder_aux
from headrace.model.sequential import build_model

CONFIG = DecoderConfig(layers=2, hidden=32, heads=4, kv_heads=2).sized(23, 16)


def test_a_token_does_not_see_what_follows_it() -> None:
    model = build_model(CONFIG, 0)
    tokens = torch.randint(1, 23, (1, 12), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 7] = (changed[0, 7] + 1) % 22 + 1
    before, after = (model(t, decoder_aux(t, eos=0)) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :7], after[:, :7], rtol=0, atol=0)
    assert (before[:, 7:] - after[:, 7:]).abs().amax(-1).min() > 1e-4


def test_packed_documents_get_the_logits_that_each_gets_alone() -> None:
    model = build_model(CONFIG, 0)
    documents = [[3, 9, 4, 0], [8, 0], [5, 6, 7, 8, 9, 0]]
    packed = torch.tensor([[token for document in documents for token in document]])
    alone = torch.cat([model(torch.tensor([d]), decoder_aux(torch.tensor([d]), 0)) for d in documents], dim=1)
    torch.testing.assert_close(model(packed, decoder_aux(packed, 0)), alone, rtol=1e-5, atol=1e-6)
