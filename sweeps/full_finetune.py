"""All weights of a small model, not an adapter: which learning rate and effective batch size? Every
trial is 16 bytes a parameter, so this is for bases that leave room on one GPU."""

from sftray import DataConfig, SweepConfig, TrialConfig, fitting, launch, loguniform

sweep = SweepConfig(
    name="full_finetune",
    data=DataConfig("HuggingFaceH4/ultrachat_200k", split="train_sft", max_length=2048),
    trial=TrialConfig(
        "Qwen/Qwen3-0.6B-Base",
        finetune="full",
        base_precision="bf16",  # computed in; the weights themselves are float32
        num_train_epochs=1,
    ),
    search_space={
        # usual are 1e-5 to 5e-5, a tenth of LoRA's; small models bear more
        "learning_rate": loguniform(3e-6, 2e-4),
        # below 8 the gradient is noisy, above 128 a small dataset has too few updates
        "effective_batch_size": fitting([8, 16, 32, 64, 128]),
    },
    num_trials=16,
)

if __name__ == "__main__":
    launch(sweep)
