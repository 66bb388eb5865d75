import torch
import torch.nn.functional as F

from headrace.model.attention import Attention
from headrace.model.aux import decoder_aux
from headrace.model.config import DecoderConfig


def attention(kv_heads: int) -> tuple[Attention, torch.Generator]:
    generator = torch.Generator().manual_seed(1)
    made = Attention(DecoderConfig(hidden=32, heads=4, kv_heads=kv_heads).sized(11, 16))
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(generator=generator)
    return made, generator


def attend(made: Attention, hidden: torch.Tensor, aux: torch.Tensor) -> torch.Tensor:
    return made(hidden, made.geometry(hidden, aux))


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
    torch.testing.assert_close(attend(grouped, hidden, aux), attend(full, hidden, aux))


def test_the_path_without_a_mask_gives_what_the_mask_gives() -> None:
    made, generator = attention(kv_heads=4)
    hidden = torch.randn(2, 12, 32, generator=generator)
    single = decoder_aux(torch.ones(2, 12, dtype=torch.long), eos=0)
    other = torch.cat((single, single), 0)
    other[2:, 6:, 1] = 1  # two rows of two segments, so that the whole batch takes the masked path
    torch.testing.assert_close(attend(made, hidden, single), attend(made, torch.cat((hidden, hidden)), other)[:2])


def test_attention_is_softmax_of_scaled_products() -> None:
    made, generator = attention(kv_heads=4)
    hidden = torch.randn(1, 5, 32, generator=generator)
    aux = torch.zeros(1, 5, 4, dtype=torch.long)  # every position 0: no rotation
    query, key, value = F.linear(hidden, made.qkv.weight).view(5, 3, 4, 8).permute(1, 2, 0, 3)
    scores = (query @ key.mT / 8**0.5).masked_fill(~torch.ones(5, 5).tril().bool(), -torch.inf)
    expected = F.linear((scores.softmax(-1) @ value).permute(1, 0, 2).reshape(1, 5, 32), made.out.weight)
    torch.testing.assert_close(attend(made, hidden, aux), expected)
