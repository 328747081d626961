"""The frozen base spread over a trial's workers: FSDP2 over NF4 weights, for bases of which one GPU
has no room beside what training takes.

Promise: the same losses as with a whole base on every worker. Each decoder layer is gathered before
it is used and let go afterwards, forward and backward; embedding, head and adapters are on every
worker, so checkpoints are what they are without. Price: the base crosses the wire twice a
micro-batch (three times under activation checkpointing); it must fit each GPU while it is loaded.

It works because the fused LoRA layers dequantise by the state that bitsandbytes leaves in the
module: its own forward pass looks for it in the weight, where FSDP2 has put a tensor of its own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def shard_base(model: Any) -> None:
    """Spread the decoder layers of a PEFT model, all of whose linear layers are fused, over the
    workers of the process group."""
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.quant_state = module.weight.quant_state
    decoder = model.get_base_model().get_decoder()
    kept = {parameter for parameter in decoder.parameters() if parameter.requires_grad}
    kept |= set(decoder.embed_tokens.parameters())
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    # all alike after every forward pass: saving a checkpoint on one worker lets its copies go, and
    # it would gather again what the others still have
    options: dict[str, Any] = {
        "mesh": mesh,
        "ignored_params": kept,
        "reshard_after_forward": True,
    }
    for layer in decoder.layers:
        fully_shard(layer, **options)
    fully_shard(decoder, **options)


def mean_of_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every worker the mean of all workers' gradients, as DDP would."""
    together = torch.cat([p.grad.view(-1) for p in parameters if p.grad is not None])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    start = 0
    for parameter in parameters:
        if parameter.grad is not None:
            end = start + parameter.grad.numel()
            parameter.grad.copy_(together[start:end].view_as(parameter.grad))
            start = end
