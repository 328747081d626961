"""How many epochs, and how long a warm-up? Trials of different epochs stand at different points of
their cosine, so ASHA compares them only with trials of the same number of epochs."""

from sftray import DataConfig, SweepConfig, TrialConfig, choice, launch, uniform

sweep = SweepConfig(
    name="epochs_warmup",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig("Qwen/Qwen3-8B-Base", learning_rate=1e-4, effective_batch_size=16),
    search_space={
        # under 10k examples 2 or 3 can memorise; over 100k one is often enough
        "num_train_epochs": choice([1, 2, 3]),
        "warmup_ratio": uniform(0.0, 0.1),  # Adam's moments settle before full-size steps
    },
    num_trials=18,
)

if __name__ == "__main__":
    launch(sweep)
