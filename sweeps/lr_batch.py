"""Which learning rate and effective batch size? The first question of any fine-tune."""

from sftray import (
    DataConfig,
    SweepConfig,
    TrialConfig,
    fitting,
    launch,
    loguniform,
)

sweep = SweepConfig(
    name="lr_batch",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig("Qwen/Qwen3-8B-Base", lora_r=16, num_train_epochs=1),
    search_space={
        # published sweeps of 8B bases have their best at 3e-4 to 1e-3; it moves with batch and data
        "learning_rate": loguniform(3e-5, 3e-3),
        # below 8 the gradient is noisy, above 128 a small dataset has too few updates; sizes that
        # leave fewer than 10 steps on the dataset are dropped
        "effective_batch_size": fitting([8, 16, 32, 64, 128]),
    },
    num_trials=32,
    # the best of 32 noisy losses is partly luck: the two best are run again with new seeds
    confirm_top=2,
    confirm_seeds=3,
)

if __name__ == "__main__":
    launch(sweep)
