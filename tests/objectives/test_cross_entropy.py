import pytest
import torch
import torch.nn.functional as F

from headrace.objectives import cross_entropy as module
from headrace.objectives.cross_entropy import cross_entropy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
def test_it_is_torch_s_cross_entropy_whatever_the_block(monkeypatch: pytest.MonkeyPatch, rows_at_once: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", rows_at_once * 4 * 37)
    generator = torch.Generator().manual_seed(0)
    logits = (10 * torch.randn(50, 37, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(0, 37, (50,), generator=generator)
    weights = torch.rand(50, generator=generator) < 0.7
    nats = cross_entropy(logits, targets, weights)
    (gradient,) = torch.autograd.grad(nats * 0.25, logits)
    reference = logits.detach().float().requires_grad_()
    expected = F.cross_entropy(reference[weights], targets[weights], reduction="sum")
    (expected_gradient,) = torch.autograd.grad(expected * 0.25, reference)
    torch.testing.assert_close(nats, expected, rtol=1e-5, atol=1e-5)
    assert nats.dtype == torch.float32 and gradient.dtype == dtype
    tolerance = 1e-6 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(gradient.float(), expected_gradient, rtol=tolerance, atol=tolerance)


def test_it_agrees_with_finite_differences() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    targets, weights = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 1, 0, 1, 1, 1]).bool()
    assert torch.autograd.gradcheck(lambda x: cross_entropy(x, targets, weights), logits, eps=1e-3, atol=1e-2)


def test_without_a_gradient_none_is_kept() -> None:
    logits = torch.randn(4, 5)
    assert not cross_entropy(logits, torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)).requires_grad
