"""Which LoRA rank? Alpha is 32 at every rank, so that the best learning rate moves little with it;
the rate is searched along with the rank all the same."""

from sftray import DataConfig, SweepConfig, TrialConfig, choice, launch, loguniform

sweep = SweepConfig(
    name="rank",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig("Qwen/Qwen3-8B-Base", effective_batch_size=16),
    search_space={
        "lora_r": choice([4, 8, 16, 32, 64]),  # 16 on all linear layers is about 0.5 % of an 8B
        "learning_rate": loguniform(1e-4, 2e-3),
    },
    num_trials=24,
)

if __name__ == "__main__":
    launch(sweep)
