"""Sizes of a model, and what follows from them: parameters and arithmetic a token."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from headrace.config import Config

MLP_MULTIPLE = 16  # elements; matrix kernels of every platform like rows of at least 32 bytes
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "hidden": 256, "heads": 4},  # the defaults below
    "124m": {"layers": 12, "hidden": 768, "heads": 12},  # sizes of GPT-2 small (Radford et al. 2019, table 2)
    "350m": {"layers": 24, "hidden": 1024, "heads": 16},  # and of its medium one
    "1b": {"layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8, "mlp": 8192},  # sizes of Llama 3.2 1B's published configuration
}


class DecoderConfig(Config):
    """A Llama-style decoder as a user writes it: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
    """

    architecture: Literal["decoder"] = "decoder"
    preset: Literal["tiny", "124m", "350m", "1b"] | None = None  # fills the sizes that are not given beside it
    layers: PositiveInt = 4
    hidden: PositiveInt = 256  # width of the residual stream
    heads: PositiveInt = 4  # query heads
    kv_heads: PositiveInt | None = None  # key and value heads, each shared by heads / kv_heads queries; null = heads
    mlp: PositiveInt | None = None  # inner width of SwiGLU; null = 8/3 of hidden, rounded up to a multiple of 16
    rope_theta: PositiveFloat = 10_000.0  # base of the rotary wavelengths
    norm_eps: PositiveFloat = 1e-5
    tied_embeddings: bool = False  # the output projection is the embedding matrix

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            given = {key: value for key, value in values.items() if value is not None}
            return {**PRESETS[values["preset"]], **given}
        return values

    @model_validator(mode="after")
    def _divides(self) -> DecoderConfig:
        if self.hidden % self.heads or self.head_size % 2:
            raise ValueError(
                f"hidden = {self.hidden} over heads = {self.heads} must be an even whole number; "
                f"hidden = {-(-self.hidden // (2 * self.heads)) * 2 * self.heads} is the next that fits"
            )
        if self.heads % self.key_value_heads:
            fits = [n for n in range(1, self.heads + 1) if self.heads % n == 0]
            raise ValueError(f"kv_heads = {self.kv_heads} does not divide heads = {self.heads}; one of {fits} does")
        return self

    @property
    def head_size(self) -> int:
        return self.hidden // self.heads

    @property
    def key_value_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def mlp_size(self) -> int:
        return self.mlp or -(-8 * self.hidden // (3 * MLP_MULTIPLE)) * MLP_MULTIPLE

    def sized(self, vocab_size: int, sequence_length: int) -> ModelConfig:
        """With the two sizes that come from the token store rather than from the user."""
        return ModelConfig(**self.model_dump(), vocab_size=vocab_size, sequence_length=sequence_length)


class ModelConfig(DecoderConfig):
    """A decoder with everything that its weights' shapes depend on: what a checkpoint records."""

    vocab_size: PositiveInt = Field(description="rows of the embedding")
    sequence_length: PositiveInt = Field(description="tokens of a training sequence; longer ones are computed, but were never trained on")


def parameter_count(config: ModelConfig) -> int:
    """Trainable numbers of the whole model, tied embeddings counted once."""
    embeddings = config.vocab_size * config.hidden * (1 if config.tied_embeddings else 2)
    return embeddings + config.layers * (_block_matrices(config) + 2 * config.hidden) + config.hidden


def flops_per_token(config: ModelConfig) -> float:
    """Floating-point operations of forward and backward a trained token: 6N + 12 layers x hidden x sequence_length.

    N leaves out the embedding's look-up (no multiplications) and counts the output projection. Attention is counted in
    full, as in the model-flops utilisation of Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, appendix B), although half of
    a causal mask's products are never needed.
    """
    matrices = config.layers * _block_matrices(config) + config.vocab_size * config.hidden
    return 6.0 * matrices + 12.0 * config.layers * config.hidden * config.sequence_length


def _block_matrices(config: DecoderConfig) -> int:
    qkv = config.hidden * config.head_size * (config.heads + 2 * config.key_value_heads)
    return qkv + config.hidden * config.hidden + 3 * config.hidden * config.mlp_size
