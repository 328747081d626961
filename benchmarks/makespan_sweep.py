"""The sweep that sweep_makespan.py times: its model, data and learning rates come from there."""

from sftray import DataConfig, SweepConfig, TrialConfig, launch

sweep = SweepConfig(
    name="makespan",
    data=DataConfig(
        "train.jsonl", eval_source="eval.jsonl", num_eval_conversations=64, max_length=512
    ),
    trial=TrialConfig("model", lora_r=16, effective_batch_size=8),
    points=({"learning_rate": 1e-4},),  # --points brings those of the benchmark
    scheduler="none",  # every trial runs to its end, on all sides
    rungs=(),  # no evaluations but the last
    evals_per_trial=1,
    num_samples_generated=0,
    wandb="disabled",
    on_broken_base="warn",  # its weights are random
)

if __name__ == "__main__":
    launch(sweep)
