"""Everything at once: learning rate, effective batch, epochs, warm-up and rank, and how sure the
answer is. Five axes want some 60 trials; most are stopped at a rung."""

from sftray import (
    DataConfig,
    SweepConfig,
    TrialConfig,
    choice,
    fitting,
    launch,
    loguniform,
    uniform,
)

sweep = SweepConfig(
    name="full",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig("Qwen/Qwen3-8B-Base", weight_decay=0.01),
    search_space={
        # the one that matters most: published sweeps of 8B bases have their best at 3e-4 to 1e-3
        "learning_rate": loguniform(3e-5, 3e-3),
        # below 8 the gradient is noisy, above 128 there are too few updates
        "effective_batch_size": fitting([8, 16, 32, 64, 128]),
        # more than 2 memorises small datasets; trials are compared with those of as many epochs
        "num_train_epochs": choice([1, 2]),
        "warmup_ratio": uniform(0.0, 0.1),  # Adam's moments settle before full-size steps
        # capacity; alpha is 32 at every rank, so that the best learning rate moves little
        "lora_r": choice([8, 16, 32, 64]),
    },
    num_trials=60,  # or until a budget is spent: --set max_gpu_hours=20
    # the best of 60 noisy losses is partly luck: the three best are run again with new seeds
    confirm_top=3,
    confirm_seeds=3,
)

if __name__ == "__main__":
    launch(sweep)
