"""What forward passes keep in memory for the backward ones: an estimate from the sizes (Korthikanti et al. 2022, arXiv:2205.05198)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.model import ModelConfig
from headrace.objectives.blocks import BLOCK_BYTES, GPU_BLOCK_BYTES
from headrace.train.config import Recompute, TrainConfig
from headrace.train.layout import Layout
from headrace.train.stages import layer_weights

WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2}  # bytes of a number in a pass
FP32 = 4


@dataclass(frozen=True)
class Passes:
    """The passes of one rank through its layers."""

    model: ModelConfig
    config: TrainConfig
    layout: Layout
    layers: Sequence[str]  # canonical names, first to last
    on_gpu: bool

    def peak(self, micro_batches: int) -> int:
        """Bytes at the worst moment of a step, when so many micro-batches have gone forward and not yet backward."""
        return micro_batches * self.kept() + self.at_once()

    def kept(self) -> int:
        """Bytes that one micro-batch's forward pass keeps for its backward pass."""
        recompute = self.config.activation_checkpointing
        aux = 4 * 8 + 2 * FP32 * self.model.head_size  # and the rotations that follow from it
        return self.tokens * aux + sum(self._layer(name, recompute) for name in self.layers) + self.width * self._logits

    def at_once(self) -> int:
        """Bytes beside what is kept: of a block that is computed again, or of the logits under the loss."""
        again = 0 if self.config.activation_checkpointing == "none" else max(self._layer(name, "none") for name in self.layers)
        block = min(GPU_BLOCK_BYTES if self.on_gpu else BLOCK_BYTES, FP32 * self._logits)
        return max(again, self.width * self._logits + block)

    @property
    def width(self) -> int:
        return WIDTH[self.config.precision]

    @property
    def tokens(self) -> int:
        """Of a micro-batch."""
        return self.config.batch.micro_batch * self.model.sequence_length

    def _stream(self, name: str) -> int:
        """Tokens of a row that a layer works on; those of an encoder-decoder work on half of it, and pass on the whole."""
        start, stop = self.model.streams(self.model.sequence_length)[0 if name.startswith("encoder") else -1]
        return stop - start

    @property
    def _logits(self) -> int:
        """Numbers that this rank says of a micro-batch; what is kept of them is their gradient."""
        if self.layers[-1] != "head":
            return 0
        return self.config.batch.micro_batch * self._stream("head") * -(-self.model.vocab_size // self.layout.tensor)

    def _layer(self, name: str, recompute: Recompute) -> int:
        """Bytes that a layer keeps of a micro-batch (section 4.1 of the source, with SwiGLU and grouped queries)."""
        hidden = self.model.hidden // (self.layout.tensor if self.layout.sequence else 1)  # numbers of a token between the matrices
        dropped = hidden * bool(self.model.dropout)  # a byte for each entry of a mask
        if name == "embed":
            return self.tokens * dropped  # the look-up's result is the first block's input
        if "." in name and recompute == "block":
            return self.tokens * self.width * hidden
        streams = len(self.model.streams(self.model.sequence_length))
        # What goes in: kept anyway by the first norm, unless it is recomputed or a stream is cut out of it.
        passed_on = 0 if name == "head" or (recompute == "none" and streams == 1) else self.width * hidden
        # A norm keeps its input in float32 and, on a CPU, the direction of it, too.
        norm = FP32 * hidden * (1 if self.on_gpu else 2) + self.width * hidden
        kept = 0
        for weight, found in layer_weights(self.model)[name].items():
            if len(found.shape) == 1:
                kept += norm if recompute == "none" or "." not in name else 0
            elif found.shard is not None and found.shard.dim == 1:
                kept += self._row(weight, found.shape[1], recompute, self._stream(name))
                kept += self.width * hidden if recompute == "selective" else dropped
            elif name != "head":
                kept += self._column(weight, found.shape[0], recompute)
        return self.tokens * passed_on + self.config.batch.micro_batch * self._stream(name) * kept

    def _row(self, weight: str, inputs: int, recompute: Recompute, keys: int) -> int:
        """Bytes a token of what goes into a row layer; keys: positions that are attended to."""
        attends = weight.endswith("out.weight")
        kept = self.width * inputs // self.layout.tensor if attends or recompute == "none" else 0
        if attends:  # no matrix of scores, but their sums; and where documents are packed a mask, as numbers
            kept += FP32 * self.model.heads // self.layout.tensor
            kept += self.width * keys if recompute == "none" else 0
        return kept

    def _column(self, weight: str, outputs: int, recompute: Recompute) -> int:
        """Bytes a token of what comes out of a column layer, and of what is made of it on the way to the row layer."""
        kept = outputs
        if recompute == "none" and weight.endswith("gate_up.weight"):
            kept += outputs // 2
        if recompute == "none" and weight.endswith("qkv.weight"):
            kept += self.model.head_size * (self.model.heads + self.model.key_value_heads)
        return self.width * kept // self.layout.tensor
