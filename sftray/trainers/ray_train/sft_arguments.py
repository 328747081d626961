"""TRL's SFTConfig of a trial."""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path

import torch
from transformers import PreTrainedModel
from trl import SFTConfig

from sftray.config import TrialConfig
from sftray.plan.lr_schedule import decay
from sftray.plan.trial_plan import TrialPlan
from sftray.trial.base_model import compute_dtype


def liger_works(model: PreTrainedModel) -> bool:
    """Whether Liger's Triton kernels for norms, rotary and SwiGLU are there for this model."""
    if model.device.type != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return False
    logging.getLogger("liger_kernel").setLevel(logging.ERROR)  # it tells what it cannot use
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return model.config.model_type in MODEL_TYPE_TO_APPLY_LIGER_FN


def sft_arguments(
    trial: TrialConfig, plan: TrialPlan, scratch: Path, model: PreTrainedModel
) -> SFTConfig:
    device = model.device
    schedule, schedule_arguments = "warmup_stable_decay", {**decay(trial, plan.steps)}
    if trial.lr_scheduler == "cosine":
        schedule, schedule_arguments = "cosine_with_min_lr", {"min_lr_rate": trial.min_lr_ratio}
    return SFTConfig(
        output_dir=str(scratch),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.micro_batch_size,
        gradient_accumulation_steps=plan.accumulation,
        average_tokens_across_devices=True,
        train_sampling_strategy="sequential",
        learning_rate=trial.learning_rate,
        lr_scheduler_type=schedule,
        lr_scheduler_kwargs=schedule_arguments,
        warmup_steps=plan.warmup_steps,
        optim="adamw_torch_fused" if device.type == "cuda" else "adamw_torch",
        adam_beta1=trial.adam_beta1,
        adam_beta2=trial.adam_beta2,
        weight_decay=trial.weight_decay,
        max_grad_norm=trial.max_grad_norm,
        bf16=compute_dtype(trial, device) == torch.bfloat16,
        use_cpu=device.type == "cpu",
        activation_checkpointing=plan.execution.activation_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        ddp_find_unused_parameters=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        packing=False,
        padding_free=False,
        max_length=None,
        seed=trial.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
    )
