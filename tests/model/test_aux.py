import torch

from headrace.model.aux import decoder_aux


def test_positions_restart_and_segments_rise_behind_an_end_of_text() -> None:
    tokens = torch.tensor([[5, 6, 0, 7, 0, 0, 8, 9], [0, 3, 3, 3, 3, 3, 3, 0]])
    position, segment = decoder_aux(tokens, eos=0).unbind(-1)
    assert position.tolist() == [[0, 1, 2, 0, 1, 0, 0, 1], [0, 0, 1, 2, 3, 4, 5, 6]]
    assert segment.tolist() == [[0, 0, 0, 1, 1, 2, 3, 3], [0, 1, 1, 1, 1, 1, 1, 1]]
    assert decoder_aux(tokens, eos=0).dtype == torch.int64
