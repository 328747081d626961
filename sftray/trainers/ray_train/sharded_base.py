"""The frozen base spread over a trial's workers: FSDP2 over NF4 weights, for bases of which one GPU
has no room beside what training takes.

Promise: the same losses as with a whole base on every worker. Each decoder layer is gathered before
it is used and let go afterwards, forward and backward; embedding, head and adapters are on every
worker, so checkpoints are what they are without. Price: the base crosses the wire twice a
micro-batch (three times under activation checkpointing); it must fit each GPU while it is loaded.

It works because the fused LoRA layers dequantise by the state that bitsandbytes leaves in the
module: its own forward pass looks for it in the weight, where FSDP2 has put a tensor of its own.

FSDP2 takes floating-point tensors only, so 4-bit numbers are stored in those; some then look like
NaN. PyTorch's grouped copy on a GPU goes from bfloat16 through float32 and back, and makes all NaN
the same one: stored in bfloat16 the weights would be damaged (seen: a base's eval loss of 5.53
instead of 5.50). In float32 beside bfloat16 norms they travel as bytes. `shard_base` compares what
the base computes before and after, and refuses a damaged one.
"""

from __future__ import annotations

import functools

import torch
import torch.distributed as dist
from peft import PeftModel
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

TOLERANCE = 1e-3
"""Relative; the same products in the same order give the same numbers."""


def shard_base(model: PeftModel) -> None:
    """Spread the decoder layers of a PEFT model, all of whose linear layers are fused, over the
    workers of the process group. Raises RuntimeError where it computes anything else afterwards."""
    before = _probe(model)
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.quant_state = module.weight.quant_state
    decoder = model.get_base_model().get_decoder()
    kept = {parameter for parameter in decoder.parameters() if parameter.requires_grad}
    kept |= set(decoder.embed_tokens.parameters())
    mesh = init_device_mesh(model.device.type, (dist.get_world_size(),))
    # all alike after every forward pass: saving a checkpoint on one worker lets its copies go, and
    # it would gather again what the others still have
    shard = functools.partial(
        fully_shard, mesh=mesh, ignored_params=kept, reshard_after_forward=True
    )
    for layer in decoder.layers:
        shard(layer)
    shard(decoder)
    change = float((_probe(model) - before).abs().max() / before.abs().max())
    if not change <= TOLERANCE:
        raise RuntimeError(
            f"shard_base: the base computes something else when it is spread over the workers "
            f"(hidden states change by {change:.1e} of their largest)"
        )


@torch.no_grad()
def _probe(model: PeftModel) -> torch.Tensor:
    """The last hidden states of a few tokens, float32."""
    decoder = model.get_base_model().get_decoder()
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(0, vocabulary, (1, 64), generator=torch.Generator().manual_seed(0))
    was_training = model.training
    model.eval()
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
        states = decoder(ids.to(model.device), use_cache=False).last_hidden_state.float()
    model.train(was_training)
    return torch.as_tensor(states)


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
