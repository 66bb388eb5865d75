"""Sizes of a model, and what follows from them: parameters and arithmetic a token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, PositiveFloat, PositiveInt, Tag, TypeAdapter, model_validator

from headrace.config import Config

MLP_MULTIPLE = 16  # elements; matrix kernels of every platform like rows of at least 32 bytes
PRESETS: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "hidden": 256, "heads": 4},  # the defaults below
    "124m": {"layers": 12, "hidden": 768, "heads": 12},  # sizes of GPT-2 small (Radford et al. 2019, table 2)
    "350m": {"layers": 24, "hidden": 1024, "heads": 16},  # and of its medium one
    "1b": {"layers": 16, "hidden": 2048, "heads": 32, "kv_heads": 8, "mlp": 8192},  # sizes of Llama 3.2 1B's published configuration
}


class _Transformer(Config):
    """What the architectures have in common: RMSNorm, rotary positions, SwiGLU, grouped-query attention.

    Source: Touvron et al. 2023, arXiv:2302.13971, section 2.2; Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
    """

    layers: PositiveInt = 4  # blocks, of an encoder-decoder those of the decoder
    hidden: PositiveInt = 256  # width of the residual stream
    heads: PositiveInt = 4  # query heads
    kv_heads: PositiveInt | None = None  # key and value heads, each shared by heads / kv_heads queries; null = heads
    mlp: PositiveInt | None = None  # inner width of SwiGLU; null = 8/3 of hidden, rounded up to a multiple of 16
    rope_theta: PositiveFloat = 10_000.0  # base of the rotary wavelengths
    norm_eps: PositiveFloat = 1e-5
    tied_embeddings: bool = False  # the output projection is the embedding matrix
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # while training, of the embedding and of what a branch adds to the residual stream

    @model_validator(mode="after")
    def _divides(self) -> _Transformer:
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


class DecoderConfig(_Transformer):
    """A Llama-style decoder as a user writes it."""

    architecture: Literal["decoder"] = "decoder"
    preset: Literal["tiny", "124m", "350m", "1b"] | None = None  # fills the sizes that are not given beside it

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") in PRESETS:
            given = {key: value for key, value in values.items() if value is not None}
            return {**PRESETS[values["preset"]], **given}
        return values

    def sized(self, vocab_size: int, sequence_length: int) -> SizedDecoder:
        """With the two sizes that come from the token store rather than from the user."""
        return SizedDecoder(**self.model_dump(), vocab_size=vocab_size, sequence_length=sequence_length)

    def streams(self, length: int) -> tuple[tuple[int, int], ...]:
        """First and last + 1 token of each stream in a row of that length, the one that is predicted last."""
        return ((0, length),)


class EncoderDecoderConfig(_Transformer):
    """A T5-like encoder-decoder as a user writes it, of the decoder's parts; both streams are packed in one tensor, half a row each.

    Source: Raffel et al. 2020, JMLR 21(140), section 2.1, with the decoder's norm, positions and feed-forward layer.
    """

    architecture: Literal["encoder_decoder"] = "encoder_decoder"
    encoder_layers: PositiveInt = 4

    def sized(self, vocab_size: int, sequence_length: int) -> SizedEncoderDecoder:
        """With the two sizes that come from the token store rather than from the user."""
        return SizedEncoderDecoder(**self.model_dump(), vocab_size=vocab_size, sequence_length=sequence_length)

    def streams(self, length: int) -> tuple[tuple[int, int], ...]:
        """First and last + 1 token of the encoder's and the decoder's stream in a packed row, or in a rank's share of one."""
        return ((0, source_length(length)), (source_length(length), length))


class SizedDecoder(DecoderConfig):
    """A decoder with everything that its weights' shapes depend on: what a checkpoint records."""

    vocab_size: PositiveInt = Field(description="rows of the embedding")
    sequence_length: PositiveInt = Field(description="tokens of a training sequence; longer ones are computed, but were never trained on")


class SizedEncoderDecoder(EncoderDecoderConfig):
    """An encoder-decoder with everything that its weights' shapes depend on: what a checkpoint records."""

    vocab_size: PositiveInt = Field(description="rows of the embedding")
    sequence_length: PositiveInt = Field(description="tokens of a training sequence, both streams together")


def source_length(length: int) -> int:
    """Tokens of the encoder's stream in a packed row of both; the decoder's are behind them."""
    return length // 2


def _architecture(values: Any) -> str | None:
    named = values.get("architecture", "decoder") if isinstance(values, Mapping) else getattr(values, "architecture", None)
    # Brackets keep the tag out of the places that mistakes are reported at.
    return f"[{named}]" if named in ("decoder", "encoder_decoder") else None


_BY_ARCHITECTURE = Discriminator(
    _architecture,
    custom_error_type="architecture",
    custom_error_message="architecture is none of 'decoder' and 'encoder_decoder'",
)
ModelSpec = Annotated[
    Annotated[DecoderConfig, Tag("[decoder]")] | Annotated[EncoderDecoderConfig, Tag("[encoder_decoder]")], _BY_ARCHITECTURE
]
ModelConfig = SizedDecoder | SizedEncoderDecoder
_SIZED: TypeAdapter[ModelConfig] = TypeAdapter(
    Annotated[Annotated[SizedDecoder, Tag("[decoder]")] | Annotated[SizedEncoderDecoder, Tag("[encoder_decoder]")], _BY_ARCHITECTURE]
)


def model_config(values: Mapping[str, Any]) -> ModelConfig:
    """A model's configuration as a checkpoint records it; raises pydantic's ValidationError for what is none."""
    return _SIZED.validate_python(values)


def parameter_count(config: ModelConfig) -> int:
    """Trainable numbers of the whole model, tied embeddings counted once."""
    embeddings = config.vocab_size * config.hidden * (1 if config.tied_embeddings else 2)
    decoder = config.layers * (_attention_matrices(config) + _mlp_matrices(config) + 2 * config.hidden)
    if isinstance(config, SizedDecoder):
        return embeddings + decoder + config.hidden
    encoder = config.encoder_layers * (_attention_matrices(config) + _mlp_matrices(config) + 2 * config.hidden) + config.hidden
    return embeddings + encoder + decoder + config.layers * (_attention_matrices(config) + config.hidden) + config.hidden


def flops_per_token(config: ModelConfig) -> float:
    """Floating-point operations of forward and backward a trained token: 6N + 12 layers x hidden x sequence_length.

    N leaves out the embedding's look-up (no multiplications) and counts the output projection. Attention is counted in
    full, as in the model-flops utilisation of Chowdhery et al. 2022 (PaLM, arXiv:2204.02311, appendix B), although half of
    a causal mask's products are never needed. A token of an encoder-decoder is one of either stream: each is counted by
    what is done for it, and the mean is given.
    """
    block, head = _attention_matrices(config) + _mlp_matrices(config), config.vocab_size * config.hidden
    if isinstance(config, SizedDecoder):
        return 6.0 * (config.layers * block + head) + 12.0 * config.layers * config.hidden * config.sequence_length
    source = source_length(config.sequence_length)
    target = config.sequence_length - source
    keys_values = 2 * config.hidden * config.head_size * config.key_value_heads  # of the memory, in each decoder block
    queries_out = 2 * config.hidden * config.hidden
    matrices = source * (config.encoder_layers * block + config.layers * keys_values)
    matrices += target * (config.layers * (block + queries_out) + head)
    scores = config.encoder_layers * source * source + config.layers * target * (target + source)
    return (6.0 * matrices + 12.0 * config.hidden * scores) / config.sequence_length


def _attention_matrices(config: _Transformer) -> int:
    return config.hidden * config.head_size * (config.heads + 2 * config.key_value_heads) + config.hidden * config.hidden


def _mlp_matrices(config: _Transformer) -> int:
    return 3 * config.hidden * config.mlp_size
