"""The layers of a model as DeepSpeed's PipelineModule: each stage builds only its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from headrace.model.recompute import Layer
from headrace.model.sequential import LayerSpec
from headrace.train.groups import Ranks

LossFunction = Callable[[Tensor, tuple[Tensor, ...]], Tensor]  # outputs of the last layer, labels -> scalar


class Stage(nn.Module):
    """One layer in a pipeline's terms: one tuple in, one tuple out; the last layer gives its output alone, for the loss."""

    def __init__(self, spec: LayerSpec, called: Callable[[nn.Module], Layer], last: bool) -> None:
        super().__init__()
        self.name, self.last = spec.name, last
        self.layer = spec.build()
        self.apply_layer = called(self.layer)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Any:
        hidden, aux = self.apply_layer(*inputs)
        return hidden if self.last else (hidden, aux)


def pipeline_module(
    deepspeed: Any,
    specs: Sequence[LayerSpec],
    bounds: Sequence[int],
    tied: bool,
    ranks: Ranks,
    called: Callable[[nn.Module], Layer],
    loss: LossFunction,
) -> Any:
    """The stage of this rank.

    Args:
        specs: the model's layers, first to last.
        bounds: int [stages + 1], the first layer of each stage, and behind the last.
        called: a layer -> how it is called, to compute parts of it again or with other kernels.
        tied: the last layer's `weight` is that of the first, and both are trained as one.
        loss: of the last layer's output and the labels.
    """
    from deepspeed.pipe import LayerSpec as DeferredLayer
    from deepspeed.pipe import PipelineModule
    from deepspeed.runtime.pipe.topology import PipeModelDataParallelTopology

    class Pipeline(PipelineModule):
        def _partition_layers(self, method: str = "") -> None:
            self._set_bounds(bounds[self.stage_id], bounds[self.stage_id + 1])

        def get_tied_weights_and_groups(self) -> list[tuple[Tensor, Any]]:
            """The two copies of a tied embedding, whose gradients are summed before the step."""
            ends = [*([self.forward_funcs[0]] if ranks.is_first_stage else []), *([self.forward_funcs[-1]] if ranks.is_last_stage else [])]
            return [(stage.layer.weight, ranks.ties_group) for stage in ends] if tied else []

        def named_weights(self) -> Iterator[tuple[str, nn.Parameter]]:
            for stage in self.forward_funcs:
                for name, parameter in stage.layer.named_parameters():
                    yield f"{stage.name}.{name}", parameter

    layout = ranks.layout
    topology = PipeModelDataParallelTopology(num_pp=layout.pipeline, num_mp=layout.tensor, num_dp=ranks.data_size)
    last = len(specs) - 1
    deferred = [DeferredLayer(Stage, spec, called, place == last) for place, spec in enumerate(specs)]
    module = Pipeline(layers=deferred, topology=topology, loss_fn=loss, activation_checkpoint_interval=0)
    if tied and ranks.is_last_stage:
        weight = module.forward_funcs[-1].layer.weight
        weight.ds_pipe_replicated = True  # the first stage's copy is the one that norms count and checkpoints hold
        weight.tied_to = f"{specs[0].name}.weight"
    return module
