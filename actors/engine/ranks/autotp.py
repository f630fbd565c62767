"""DeepSpeed's AutoTP splits a model over the ranks; the layers that it leaves are made ours.

AutoTP finds which products are split by outputs and which by inputs, splits uneven heads, and
tells the attention modules. Its own layers are then exchanged: they hold dense weights (no
oneDNN layout, no row invariance in float32), and their sum on CPU is either gloo's ring, whose
order depends on the number of rows, or a kernel that is compiled at first use, spins, and
neither sees that a rank has died nor gives its core to one that is waited for. The output head
is split by DeepSpeed's VocabParallelLinear: by default AutoTP splits it by inputs and would sum
whole rows of the vocabulary.
"""

from __future__ import annotations

import contextlib
import io
import os
from typing import Any

import torch
from torch import distributed, nn
from transformers import PreTrainedModel

from actors.engine.ranks.exchange import Exchange
from actors.engine.ranks.layers import SplitHead, SummedLinear
from actors.engine.route import ModelError


def split_model(model: PreTrainedModel, size: int, device: torch.device) -> None:
    """Leave this rank's part in the model, in place, on the host; `join_model` makes it run.

    A process group of `size` ranks must be there. ModelError where the model cannot be split.
    """
    config: Any = model.config
    if config.num_key_value_heads < size:
        raise ModelError(
            f"{size} ranks: the model has {config.num_key_value_heads} key/value heads, and each"
            " rank needs one"
        )
    # Read when DeepSpeed is imported, which takes seconds: only ranks of a group do.
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    import deepspeed
    from deepspeed.module_inject.layers import VocabParallelLinear
    from deepspeed.module_inject.tp_shard import AutoTPMeta

    # Or it compiles its own kernel, for minutes, under a lock that a killed rank leaves behind.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    with contextlib.redirect_stdout(io.StringIO()):
        # Without the head: see above.
        deepspeed.init_inference(
            model.model,
            dtype=model.dtype,
            tensor_parallel={"tp_size": size},
            replace_with_kernel_inject=False,
            keep_module_on_host=True,
        )
    head: Any = model.lm_head
    head.weight = nn.Parameter(head.weight.detach(), requires_grad=False)  # untied: it is cut
    model.lm_head = VocabParallelLinear(
        head,
        distributed.group.WORLD,
        name="lm_head",
        tp_meta=AutoTPMeta.from_model_config(config),
    )


def join_model(model: PreTrainedModel, exchange: Exchange) -> None:
    """Put our layers, over this rank's weights, where AutoTP left its own."""
    from deepspeed.module_inject.layers import (
        LinearAllreduce,
        LinearLayer,
        TensorParallel_Layer,
        VocabParallelLinear,
    )

    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is VocabParallelLinear:
                split = SplitHead(_linear(child), child._partition_sizes, exchange)
            elif type(child) is LinearAllreduce:
                split = SummedLinear(_linear(child, with_bias=False), child.bias, exchange)
            elif type(child) is LinearLayer:
                split = _linear(child)
            elif isinstance(child, TensorParallel_Layer):
                raise ModelError(f"{type(child).__name__} of {name} cannot be split over ranks")
            else:
                continue
            setattr(parent, name, split)
    if not any(isinstance(module, SummedLinear) for module in model.modules()):
        raise ModelError(f"AutoTP splits nothing of {type(model).__name__}")


def _linear(layer: Any, with_bias: bool = True) -> nn.Linear:
    """A plain linear layer over a split layer's weights."""
    bias: torch.Tensor | None = layer.bias if with_bias else None
    outputs, inputs = layer.weight.shape
    linear = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(layer.weight.detach(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return linear
