import torch

from headrace.model.aux import DECODER, ENCODER, decoder_aux, packed_aux

TOKENS = torch.tensor([[5, 6, 0, 7, 0, 0, 8, 9], [0, 3, 3, 3, 3, 3, 3, 0]])


def test_positions_restart_and_segments_rise_behind_an_end_of_text() -> None:
    position, segment, role, sample = decoder_aux(TOKENS, eos=0).unbind(-1)
    assert position.tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert segment.tolist() == [[0, 0, 0, 1, 1, 2, 3, 3], [0, 1, 1, 1, 1, 1, 1, 1]]
    assert role.unique().tolist() == [DECODER] and sample.unique().tolist() == [0]
    assert decoder_aux(TOKENS, eos=0).dtype == torch.int64


def test_every_token_knows_whose_sequence_it_is_in() -> None:
    assert decoder_aux(TOKENS, 0, torch.tensor([7, 1 << 40]))[..., 3].tolist() == [[7] * 8, [1 << 40] * 8]


def test_a_packed_row_is_half_the_encoder_s_and_segments_run_on_across_the_middle() -> None:
    packed, plain = packed_aux(TOKENS, 0, torch.tensor([7, 8])), decoder_aux(TOKENS, 0, torch.tensor([7, 8]))
    assert packed[..., 2].tolist() == [[ENCODER] * 4 + [DECODER] * 4] * 2
    assert torch.equal(packed[..., [0, 1, 3]], plain[..., [0, 1, 3]])
    assert packed_aux(TOKENS[:, :7], 0)[0, :, 2].tolist() == [ENCODER] * 3 + [DECODER] * 4
