import pytest
import torch

from headrace.model.aux import packed_aux
from headrace.model.geometry import across, geometry, rotary_table, rotate, segment_mask, segment_sight

DEVICE = torch.device("cpu")


def test_rotary_products_depend_on_the_distance_alone() -> None:
    cos, sin = rotary_table(64, 8, 10_000.0, DEVICE)
    query, key = torch.randn(2, 1, 1, 1, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def product(query_position: int, key_position: int) -> float:
        turned = [rotate(x, cos[None, p, None, None], sin[None, p, None, None]) for x, p in ((query, query_position), (key, key_position))]
        return float((turned[0] * turned[1]).sum())

    assert product(5, 2) == pytest.approx(product(45, 42), abs=1e-6)
    assert product(5, 2) != pytest.approx(product(5, 3), abs=1e-3)


def test_the_slowest_pair_turns_by_the_published_wavelength() -> None:
    cos, sin = rotary_table(4, 8, 10_000.0, DEVICE)  # Su et al. 2021, equation 15: theta_i = 10000^(-2(i-1)/d)
    assert cos[1, :4].tolist() == pytest.approx(torch.tensor([1.0, 0.1, 0.01, 0.001]).cos().tolist())
    assert sin[1].tolist() == pytest.approx([-s for s in sin[1, 4:].tolist()] + torch.tensor([1.0, 0.1, 0.01, 0.001]).sin().tolist())


def test_a_token_attends_to_its_own_segment_up_to_itself() -> None:
    mask = segment_mask(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]), causal=True)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert mask[1, 0].int().tolist() == torch.ones(4, 4).tril().int().tolist()


def test_rows_of_one_segment_need_neither_mask_nor_bounds() -> None:
    for packed in (False, True):
        sight = segment_sight(torch.tensor([[0, 0], [3, 3]]), causal=True, packed=packed)
        assert (sight.mask, sight.bounds, sight.causal) == (None, None, True)


@pytest.mark.parametrize("causal", [True, False])
def test_bounds_say_what_the_mask_says(causal: bool) -> None:
    segment = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 0, 0], [4, 5, 6, 7, 7, 7]])
    sight = segment_sight(segment, causal, packed=True)
    assert sight.mask is None and sight.causal is causal and sight.bounds is not None
    assert (sight.bounds.starts.dtype, sight.bounds.longest) == (torch.int32, 6)
    mask = torch.zeros(18, 18, dtype=torch.bool)
    for start, stop in zip(sight.bounds.starts.tolist(), sight.bounds.starts.tolist()[1:]):
        mask[start:stop, start:stop] = torch.ones(stop - start, stop - start).tril().bool() if causal else True
    rows = mask.view(3, 6, 3, 6)
    assert torch.equal(torch.stack([rows[row, :, row] for row in range(3)]), segment_mask(segment, causal)[:, 0])
    assert int(mask.sum()) == int(segment_mask(segment, causal).sum())  # and nothing from one row to another


PACKED = torch.tensor([[5, 0, 6, 7, 8, 0, 9, 4]])  # segments 0 0 1 1 | 1 1 2 2


def test_the_encoder_s_stream_looks_both_ways_and_the_decoder_s_back() -> None:
    aux = packed_aux(PACKED, 0)
    source, target = (geometry(aux, view, 8, 10_000.0) for view in ("source", "target"))
    assert source.sight.mask[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert target.sight.mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    cos, _ = rotary_table(8, 8, 10_000.0, DEVICE)
    assert torch.equal(source.cos[0, :, 0], cos[[0, 1, 0, 1]]) and torch.equal(target.cos[0, :, 0], cos[[2, 3, 0, 1]])


def test_the_decoder_s_stream_sees_its_own_document_in_the_encoder_s() -> None:
    sight = across(packed_aux(PACKED, 0))
    assert sight.mask[0, 0].int().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert sight.blind[0, :, 0].tolist() == [False, False, True, True]  # whose document the encoder has not read


def test_streams_of_one_document_need_no_mask() -> None:
    aux = packed_aux(torch.ones(2, 8, dtype=torch.long), 0)
    assert (across(aux).mask, across(aux).blind, across(aux).causal) == (None, None, False)
    assert (geometry(aux, "source", 8, 10_000.0).sight.causal, geometry(aux, "target", 8, 10_000.0).sight.causal) == (False, True)
