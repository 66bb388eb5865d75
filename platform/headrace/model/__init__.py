"""One definition of layers for every architecture and every parallel layout."""

from headrace.model.config import (
    DecoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    ModelSpec,
    SizedDecoder,
    SizedEncoderDecoder,
    flops_per_token,
    model_config,
    parameter_count,
)

__all__ = [
    "DecoderConfig",
    "EncoderDecoderConfig",
    "ModelConfig",
    "ModelSpec",
    "SizedDecoder",
    "SizedEncoderDecoder",
    "flops_per_token",
    "model_config",
    "parameter_count",
]
