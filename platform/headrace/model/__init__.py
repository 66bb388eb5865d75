"""One definition of layers for every architecture and every parallel layout."""

from headrace.model.aux import decoder_aux
from headrace.model.config import DecoderConfig, ModelConfig, flops_per_token, parameter_count
from headrace.model.decoder import SequentialModel, build_model

__all__ = ["DecoderConfig", "ModelConfig", "SequentialModel", "build_model", "decoder_aux", "flops_per_token", "parameter_count"]
