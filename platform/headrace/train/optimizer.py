"""AdamW, the optimizer, and what decides whether its step is taken."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat

from headrace.config import Config


class Optimizer(Config):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101); defaults of Touvron et al. 2023 (arXiv:2302.13971, section 2.3)."""

    lr: PositiveFloat = 1e-3  # peak learning rate
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.1  # on matrices; norms are not decayed
    clip: PositiveFloat | None = 1.0  # largest global gradient norm; null = never clipped
