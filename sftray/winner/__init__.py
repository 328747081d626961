"""What one does with the winner's folder: check its format, tell of it, merge it, upload it."""

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
"""What a merged model may be held in, by its short and by torch's name."""
