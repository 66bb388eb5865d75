from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch._dynamo.testing import CompileCounterWithBackend

from headrace.model.attention import Attention, attended
from headrace.model.aux import SEGMENT, decoder_aux
from headrace.model.config import DecoderConfig
from headrace.model.geometry import segment_sight


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


def packed_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    key_starts: torch.Tensor,
    longest: int,
    longest_key: int,
    *,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """What torch says that `varlen_attn` computes, which runs on a GPU alone."""
    segment = torch.searchsorted(starts, torch.arange(query.shape[0]), right=True)
    mask = segment[:, None] == segment
    if window_size == (-1, 0):
        mask = mask.tril()
    heads = (each.transpose(0, 1)[None] for each in (query, key, value))
    return F.scaled_dot_product_attention(*heads, attn_mask=mask, enable_gqa=enable_gqa)[0].transpose(0, 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_bounds_give_what_the_mask_gives(monkeypatch: pytest.MonkeyPatch, causal: bool, kv_heads: int) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", packed_kernel)
    generator = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(3, 7, heads, 8, generator=generator) for heads in (4, kv_heads, kv_heads))
    segment = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [0] * 7, [3, 4, 4, 4, 4, 4, 5]])
    sights = [segment_sight(segment, causal, packed) for packed in (True, False)]
    found, expected = (attended(query, key, value, sight) for sight in sights)
    torch.testing.assert_close(found, expected)


def test_rows_packed_in_other_ways_take_the_same_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", packed_kernel)
    made, generator = attention(kv_heads=2)
    torch.compiler.reset()
    backend = CompileCounterWithBackend("aot_eager")
    run = torch.compile(made, backend=backend, fullgraph=True)
    for ends in ([3], [2, 9], [1, 4, 6, 10], [7], [0, 1, 2, 3, 4]):
        tokens = torch.ones(2, 12, dtype=torch.long)
        tokens[0, ends] = 0
        hidden, aux = torch.randn(2, 12, 32, generator=generator), decoder_aux(tokens, eos=0)
        masked = made.geometry(hidden, aux)
        bounded = dataclasses.replace(masked, sight=segment_sight(aux[..., SEGMENT], True, packed=True))
        assert masked.sight.mask is not None and bounded.sight.bounds is not None
        torch.testing.assert_close(run(hidden, bounded), made(hidden, masked))
    assert backend.frame_count == 2  # for the first, and for any other
    torch.compiler.reset()
