"""What a careful user without sftray writes: learning rates swept with plain Ray Tune and TRL's
SFTTrainer. sweep_makespan.py compares sftray with it.

    python benchmarks/stock_sweep.py --model FOLDER --data train.jsonl --eval-data eval.jsonl \\
        --trials 16 --tokens 100000 --gpu-fraction 0.25

Conversations are tokenised and packed (best-fit decreasing) once, before the trials. A trial is a
function trainable with a share of the GPU: it loads the base in NF4, with FlashAttention-2 where
that is installed, trains on the assistant's tokens, measures the eval loss once, at the end, and
reports its adapter as a checkpoint. Prints one JSON line: seconds from the start of the process to
the best adapter, and what each trial spent before, in and after training.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from ray import tune


def main() -> None:
    options = _options()
    began = psutil.Process().create_time()
    train, evals = (_packed(file, options) for file in (options.data, options.eval_data))
    rows = min(len(train), options.tokens // options.max_length)
    settings = {
        "began": began,
        "model": str(Path(options.model).resolve()),
        "arguments": {
            "max_length": options.max_length,
            "max_steps": rows // options.effective_batch,
            "per_device_train_batch_size": options.micro_batch,
            "per_device_eval_batch_size": options.micro_batch,
            "gradient_accumulation_steps": options.effective_batch // options.micro_batch,
            "activation_checkpointing": options.activation_checkpointing,
        },
    }
    ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="WARNING")
    cluster = ray.cluster_resources()
    share = options.gpu_fraction if cluster.get("GPU", 0) > 0 else 1.0
    resources = {"cpu": max(1, int(cluster["CPU"] * share))}
    if cluster.get("GPU", 0) > 0:
        resources["gpu"] = share
    rates = np.geomspace(1e-5, 1e-3, options.trials).tolist()
    with tempfile.TemporaryDirectory(prefix="stock-sweep-") as storage:
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    train_trial, settings=settings, train=train.select(range(rows)), evals=evals
                ),
                resources,
            ),
            param_space={"learning_rate": tune.grid_search(rates)},
            tune_config=tune.TuneConfig(metric="eval_loss", mode="min"),
            run_config=tune.RunConfig(name="stock", storage_path=storage, verbose=0),
        ).fit()
        if results.errors:
            sys.exit(
                f"{len(results.errors)} of {options.trials} trials failed: {results.errors[0]}"
            )
        best = results.get_best_result()
        assert (Path(best.checkpoint.path) / "adapter_model.safetensors").exists()
        wall = time.time() - began
    line = {
        "trials": options.trials,
        "gpu_fraction": resources.get("gpu", 0),
        "rows": settings["arguments"]["max_steps"] * options.effective_batch,
        "wall_seconds": wall,
        "best": {name: best.metrics[name] for name in ("learning_rate", "eval_loss")},
        "per_trial": [{name: result.metrics[name] for name in MEASURED} for result in results],
    }
    sys.stdout.write(json.dumps(line) + "\n")


MEASURED = (
    "learning_rate",
    "eval_loss",
    "startup_seconds",  # of the function: imports, base, trainer
    "train_seconds",
    "finish_seconds",  # eval loss and adapter
    "ended",  # seconds after the start of the sweep's process
)


def train_trial(config: dict[str, Any], settings: dict[str, Any], train: Any, evals: Any) -> None:
    """One fine-tune, in a process of its own."""
    started = time.time()
    import torch
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            _base(settings["model"]),
            args=SFTConfig(
                output_dir=folder,
                learning_rate=config["learning_rate"],
                lr_scheduler_type="cosine",
                warmup_steps=0.05,
                weight_decay=0.01,
                bf16=on_gpu,
                use_cpu=not on_gpu,
                packing=True,
                packing_strategy="bfd",
                dataset_kwargs={"skip_prepare_dataset": True},  # packed already
                logging_steps=10,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **settings["arguments"],
            ),
            train_dataset=train,
            eval_dataset=evals,
            processing_class=AutoTokenizer.from_pretrained(settings["model"]),
            peft_config=LoraConfig(
                r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
            ),
        )
        training = time.time()
        trainer.train()
        trained = time.time()
        loss = trainer.evaluate()["eval_loss"]
        trainer.save_model(folder)
        ended = time.time()
        tune.report(
            {
                "learning_rate": config["learning_rate"],
                "eval_loss": loss,
                "startup_seconds": training - started,
                "train_seconds": trained - training,
                "finish_seconds": ended - trained,
                "ended": ended - settings["began"],
            },
            checkpoint=tune.Checkpoint.from_directory(folder),
        )


def _base(folder: str) -> Any:
    """The base in NF4, by FlashAttention where there is one."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    on_gpu = torch.cuda.is_available()
    flash = on_gpu and importlib.util.find_spec("flash_attn") is not None
    dtype = torch.bfloat16 if on_gpu else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
        attn_implementation="flash_attention_2" if flash else "sdpa",
        device_map={"": 0 if on_gpu else "cpu"},
    )


def _packed(file: str, options: argparse.Namespace) -> Any:
    """The conversations of a .jsonl file as rows of max_length, with labels on the assistant's
    tokens and the lengths of the documents; conversations that are longer are left out."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import pack_dataset

    lines = Path(file).read_text(encoding="utf-8").splitlines()
    encoded = AutoTokenizer.from_pretrained(options.model).apply_chat_template(
        [json.loads(line)["messages"] for line in lines],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    documents = [
        {
            "input_ids": ids,
            "labels": [token if answer else -100 for token, answer in zip(ids, mask, strict=True)],
        }
        for ids, mask in zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
        if len(ids) <= options.max_length
    ]
    return pack_dataset(Dataset.from_list(documents), options.max_length, "bfd")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", required=True, help="folder of the base")
    add("--data", required=True, help="conversations to train on, a .jsonl file")
    add("--eval-data", required=True, help="conversations to evaluate on, a .jsonl file")
    add("--trials", type=int, default=16, help="learning rates, evenly spaced from 1e-5 to 1e-3")
    add("--tokens", type=int, default=100_000, help="tokens a trial, padding included")
    add("--gpu-fraction", type=float, default=0.25, help="of a GPU for each trial")
    add("--max-length", type=int, default=512, help="tokens a packed row")
    add("--micro-batch", type=int, default=8, help="rows at once")
    add("--effective-batch", type=int, default=8, help="rows an optimizer step")
    add("--activation-checkpointing", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
