"""One definition of layers for every architecture and every parallel layout."""

from headrace.model.aux import decoder_aux, packed_aux
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
from headrace.model.sequential import LayerSpec, SequentialModel, WeightShape, build_model, draw, layer_specs, whole_shapes

__all__ = [
    "DecoderConfig",
    "EncoderDecoderConfig",
    "LayerSpec",
    "ModelConfig",
    "ModelSpec",
    "SequentialModel",
    "SizedDecoder",
    "SizedEncoderDecoder",
    "WeightShape",
    "build_model",
    "decoder_aux",
    "draw",
    "flops_per_token",
    "layer_specs",
    "model_config",
    "packed_aux",
    "parameter_count",
    "whole_shapes",
]
