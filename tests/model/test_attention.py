import pytest
import torch
import torch.nn.functional as F

from headrace.model.attention import Attention, rotary_table, rotate, segment_mask
from headrace.model.aux import decoder_aux
from headrace.model.config import DecoderConfig

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
    mask = segment_mask(torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]))
    assert mask is not None and mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]
    assert mask[1, 0].int().tolist() == torch.ones(4, 4).tril().int().tolist()
    assert segment_mask(torch.tensor([[0, 0], [3, 3]])) is None


def attention(kv_heads: int) -> tuple[Attention, torch.Generator]:
    generator = torch.Generator().manual_seed(1)
    made = Attention(DecoderConfig(hidden=32, heads=4, kv_heads=kv_heads).sized(11, 16))
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(generator=generator)
    return made, generator


def test_grouped_queries_are_full_attention_with_repeated_heads() -> None:
    grouped, generator = attention(kv_heads=2)
    full, _ = attention(kv_heads=4)
    query, key, value = grouped.qkv.weight.split((32, 16, 16))
    with torch.no_grad():
        repeated = [rows.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32) for rows in (key, value)]
        full.qkv.weight.copy_(torch.cat((query, *repeated)))
        full.out.weight.copy_(grouped.out.weight)
    hidden = torch.randn(2, 9, 32, generator=generator)
    aux = decoder_aux(torch.tensor([[1, 2, 3, 0, 5, 6, 7, 8, 9], [1] * 9]), eos=0)
    torch.testing.assert_close(grouped(hidden, aux), full(hidden, aux))


def test_the_path_without_a_mask_gives_what_the_mask_gives() -> None:
    made, generator = attention(kv_heads=4)
    hidden = torch.randn(2, 12, 32, generator=generator)
    single = torch.stack((torch.arange(12).expand(2, 12), torch.zeros(2, 12, dtype=torch.long)), -1)
    other = torch.cat((single, single), 0)
    other[2:, 6:, 1] = 1  # two rows of two segments, so that the whole batch takes the masked path
    torch.testing.assert_close(made(hidden, single), made(torch.cat((hidden, hidden)), other)[:2])


def test_attention_is_softmax_of_scaled_products() -> None:
    made, generator = attention(kv_heads=4)
    hidden = torch.randn(1, 5, 32, generator=generator)
    aux = torch.zeros(1, 5, 2, dtype=torch.long)  # every position 0: no rotation
    query, key, value = F.linear(hidden, made.qkv.weight).view(5, 3, 4, 8).permute(1, 2, 0, 3)
    scores = (query @ key.mT / 8**0.5).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    expected = F.linear((scores.softmax(-1) @ value).permute(1, 0, 2).reshape(1, 5, 32), made.out.weight)
    torch.testing.assert_close(made(hidden, aux), expected)
