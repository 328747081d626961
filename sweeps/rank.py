"""Which LoRA rank? Alpha follows the rank (alpha = 2r), so the update's scale stays the same; the
learning rate is searched along with it, since the best one moves with the rank."""

from sftray import DataConfig, SweepConfig, TrialConfig, choice, launch, loguniform

sweep = SweepConfig(
    name="rank",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig("Qwen/Qwen3-8B-Base", effective_batch_size=16, lora_alpha_ratio=2.0),
    search_space={
        "lora_r": choice([4, 8, 16, 32, 64]),  # 16 on all linear layers is about 0.5 % of an 8B
        "learning_rate": loguniform(5e-5, 5e-4),
    },
    num_trials=24,
)

if __name__ == "__main__":
    launch(sweep)
