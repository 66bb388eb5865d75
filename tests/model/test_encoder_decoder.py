import pytest
import torch

from headrace.model import EncoderDecoderConfig
from headrace.model.aux import packed_aux
from headrace.model.sequential import SequentialModel, build_model

CONFIG = EncoderDecoderConfig(layers=2, encoder_layers=2, hidden=32, heads=4, kv_heads=2).sized(23, 16)


def logits(model: SequentialModel, rows: list[list[int]]) -> torch.Tensor:
    tokens = torch.tensor(rows)
    return model(tokens, packed_aux(tokens, 0))


def changes(at: int) -> torch.Tensor:
    """How much each decoder token's logits change with the token at a place of a row of one document."""
    model = build_model(CONFIG, 0)
    row = list(range(1, 13))
    other = [*row[:at], 20, *row[at + 1 :]]
    return (logits(model, [row]) - logits(model, [other])).abs().amax(-1)[0].detach()


@pytest.mark.parametrize("at", [0, 3, 5])
def test_the_decoder_reads_all_that_the_encoder_read(at: int) -> None:
    assert float(changes(at).min()) > 1e-5


@pytest.mark.parametrize("at", [6, 9])
def test_the_decoder_does_not_see_what_follows(at: int) -> None:
    assert float(changes(at)[: at - 6].sum()) == 0 and float(changes(at)[at - 6 :].min()) > 1e-4


def test_an_encoder_s_token_is_changed_by_those_behind_it() -> None:
    model = build_model(CONFIG, 0)
    states = []
    for last in (6, 9):
        tokens = torch.tensor([[1, 2, 3, last, 4, 5, 6, 7]])
        hidden, aux = tokens, packed_aux(tokens, 0)
        for name, layer in model.layers():
            hidden, aux = layer(hidden, aux)
            if name == "encoder_norm":
                states.append(hidden[0].detach())
    assert float((states[0] - states[1])[0].abs().max()) > 1e-5
    for state in states:  # the decoder's part has passed through
        assert torch.equal(state[4:], model.embed.weight[4:8])


def test_packed_documents_get_the_logits_that_each_gets_alone() -> None:
    model = build_model(CONFIG, 0)
    # In the encoder's half a whole document and the first half of a second; in the decoder's its other half, and a third.
    packed = logits(model, [[3, 9, 0, 7, 8, 5, 11, 12, 0, 13, 14, 0]])[0]
    across = logits(model, [[7, 8, 5, 11, 12, 0]])[0]
    unread = logits(model, [[1, 2, 0, 13, 14, 0]])[0]
    torch.testing.assert_close(packed, torch.cat((across, unread)), rtol=1e-5, atol=1e-6)


def test_what_the_encoder_has_not_read_is_decoded_without_it() -> None:
    model = build_model(CONFIG, 0)
    row = [1, 2, 3, 0, 13, 14, 15, 16]
    there = logits(model, [row])
    with torch.no_grad():
        for block in model.decoder:
            block.cross.key_value.weight.fill_(torch.nan)  # not even a weight of zero is given to the memory
    assert not logits(model, [[1, 2, 3, 4, 13, 14, 15, 16]]).isfinite().any()
    with torch.no_grad():
        for block in model.decoder:
            block.cross.key_value.weight.fill_(1.0)
    torch.testing.assert_close(logits(model, [row]), there, rtol=0, atol=0)


def test_gradients_are_numbers_where_a_document_was_not_read() -> None:
    model = build_model(CONFIG, 0)
    logits(model, [[1, 2, 3, 0, 13, 14, 15, 16], [1, 2, 3, 4, 0, 14, 15, 16]]).square().sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters())


def test_an_odd_row_gives_the_decoder_the_token_more() -> None:
    assert logits(build_model(CONFIG, 0), [[1, 2, 3, 4, 5, 6, 7]]).shape == (1, 4, 23)
