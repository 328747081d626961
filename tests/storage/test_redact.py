"""Secrets of thirty kinds are taken out of every text; healthy text stays as it is."""

from __future__ import annotations

import json

import pytest

from sftray.storage.redact import HIDDEN, looks_secret, redact

LINES = "first line of it\nQ2xlYXJ0ZXh0\nlast line of it"

BY_NAME = {
    "PGPASSWORD": "correct-horse",
    "NGC_KEY": "cGxhbnRlZG5nY2tleQ",
    "OPENAI_KEY": "plantedwithoutform",
    "DB_PASS": "hunter2",
    "MYSQL_PWD": "tr0ub4dor&3",
    "REDISPASS": "aaaabbbbcccc",
    "SSHPASS": "open sesame now",
    "HF_TOKEN": "plantedhuggingface",
    "TOKEN_GITHUB": "plantedprefixtoken",
    "SECRET_KEY_BASE": "0f" * 32,
    "AWS_SECRET_ACCESS_KEY": "/K7MDENGbPxRfiCYEXAMPLEKEYplanted0000000",
    "R2_SECRET_ACCESS_KEY": "~K7MDENGbPxRfiCYEXAMPLEKEYplanted0000000",
    "AWS_ACCESS_KEY_ID": "plantedkeyid",
    "WANDB_API_KEY": "91a47edc" * 5,
    "STORAGE_SAS": "sv=2024&sig=plantedsas%2Fsignature",
    "SLACK_WEBHOOK_URL": "https://chat.example.org/in/plantedhook",
    "SENTRY_DSN": "https://plantedsentry@o1.example.org/7",
    "AZURE_STORAGE_CONNECTION_STRING": "AccountName=me;AccountKey=plantedaccount==;Suffix=x",
    "VAULT_CREDS": "role:plantedvault",
    "DEPLOY_KEY": LINES,
}
"""By the name of an environment variable."""

IN_VALUES = {
    "DATABASE_URL": ("postgres://me:p@ss/w0rd@db:5432/x", "p@ss/w0rd"),
    "HTTPS_PROXY": ("http://me:plantedproxy@proxy:3128", "plantedproxy"),
    "GCP_ACCOUNT": (json.dumps({"type": "x", "private_key": LINES}), "Q2xlYXJ0ZXh0"),
}
"""Parts of a value that are secret, under a name that is not."""

BY_FORM = {
    "a password with an @": ("cannot reach https://me:p@ss@host/x", "p@ss"),
    "a password with a slash": ("s3://AKIDEXAMPLE:se/cr@et@bucket/x", "cr"),
    "a token for a user": ("git+https://plantedtoken@host/repo.git", "plantedtoken"),
    "a signed URL": ("GET https://host/x?a=1&X-Amz-Signature=planted1", "planted1"),
    "a connection string": ("Server=db;User Id=me;Password=planted2;Encrypt=yes", "planted2"),
    "an account's key": ("DefaultEndpointsProtocol=https;AccountKey=pl4nted==;X=y", "pl4nted"),
    "JSON": ('{"user": "me", "client_secret": "planted3"}', "planted3"),
    "JSON in JSON": (json.dumps(json.dumps({"db_password": "planted4"})), "planted4"),
    "an option": ("mysql --user me --password planted5 db", "planted5"),
    "an assignment": ("NGC_KEY=planted6 ngc config", "planted6"),
    "a header": ("Authorization: Bearer planted-seven.8", "planted-seven"),
    "Slack's webhook": ("POST https://hooks.slack.com/services/T0/B0/planted8", "planted8"),
    "Discord's webhook": ("https://discord.com/api/webhooks/12/planted9", "planted9"),
    "Telegram's bot": ("https://api.telegram.org/bot12:planted10/send", "planted10"),
    "Slack's token": ("xoxb-1234567890-planted11", "planted11"),
    "GitLab's token": ("glpat-planted12planted12planted12", "planted12"),
    "NVIDIA's key": ("nvapi-planted13planted13planted13", "planted13"),
    "Stripe's key": ("sk_live_planted14planted14", "planted14"),
    "a private key": ("-----BEGIN RSA PRIVATE KEY-----\nplanted15\n-----END RSA PRIVATE KEY-----",
                      "planted15"),
}  # fmt: skip
"""By what the text itself is like, whatever the environment holds."""


def spelled(secret: str) -> list[str]:
    """As messages have a secret."""
    once = json.dumps({"said": secret})
    return [f"401 for {secret}, again", once, json.dumps(once), repr([secret])]


def test_thirty_kinds_are_planted() -> None:
    assert len(BY_NAME) + len(IN_VALUES) + len(BY_FORM) >= 30


@pytest.mark.parametrize("name", BY_NAME)
def test_the_value_of_a_variable_that_is_named_so_is_hidden_however_it_is_spelled(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, BY_NAME[name])
    for text in spelled(BY_NAME[name]):
        shown = redact(text)
        assert HIDDEN in shown
        assert [part for part in BY_NAME[name].splitlines() if part in shown] == []


@pytest.mark.parametrize("name", IN_VALUES)
def test_a_secret_part_of_a_value_is_hidden(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    value, secret = IN_VALUES[name]
    monkeypatch.setenv(name, value)
    for text in (*spelled(value), *spelled(LINES if secret in LINES else secret)):
        assert secret not in redact(text)


@pytest.mark.parametrize("kind", BY_FORM)
def test_a_secret_of_a_known_form_is_hidden(kind: str) -> None:
    text, secret = BY_FORM[kind]
    assert secret not in redact(text)
    assert looks_secret(text)
    assert redact(redact(text)) == redact(text)


def test_the_rest_of_a_text_with_a_secret_stays() -> None:
    assert redact("GET https://me:p@ss@host:8080/x?a=1 failed") == (
        f"GET https://{HIDDEN}@host:8080/x?a=1 failed"
    )
    assert redact("Password=planted2;Encrypt=yes") == f"{HIDDEN};Encrypt=yes"


HEALTHY = [
    "step 5: loss nan, gradient norm inf at learning rate 0.1, rows 8 to 11, after 90 tokens",
    "max_new_tokens=256, eos_token='<|im_end|>', pad_token_id=0, tokens_per_second=4096",
    '{"bos_token": "<s>", "chat_template": "{{ messages }}", "key": "value"}',
    "FileNotFoundError: /home/me/key.json",
    "s3://bucket/x: a read timed out (http://127.0.0.1:9000, 3 tries)",
    "https://host:8080/wheels/pkg@1.0 and ssh://git@host/repo, git@host:repo.git",
    "http://[::1]:8265/api and http://host:PORT/x",
    "abfss://container@account.dfs.core.windows.net/chats.jsonl, gs://anonymous@bucket/x",
    "results/basic-tokens/key=3/a:b@c.jsonl",
    "OMP_NUM_THREADS=12345 RAY_ADDRESS=10.0.0.4:6379 TOKENIZERS_PARALLELISM=false",
    "password=None, api_key=None, secret: not set",
    "sha256 2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
    "torch.OutOfMemoryError: tried to allocate 2.00 GiB; a basic sweep bears fruit",
    "no token of the Hub, must be logged in: `hf auth login`, or set HF_TOKEN",
    "/tmp, /home/me/work and ~/.ray/auth_token",
]


def test_healthy_text_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PWD": "/home/me/work",
        "OLDPWD": "/home/me/work",
        "GOOGLE_APPLICATION_CREDENTIALS": "/home/me/key.json",
        "KUBE_TOKEN": "/tmp",  # a file that is there
        "GIT_ASKPASS": "/home/me/work",
        "AWS_WEB_IDENTITY_TOKEN_FILE": "/home/me/key.json",
        "TOKEN_LIMIT_TYPE": "tokens",
        "MAX_TOKENS": "4096",
        "SHORT_TOKEN": "step",
        "RAY_AUTH_MODE": "token",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        monkeypatch.setenv(name, value)
    for text in HEALTHY:
        assert redact(text) == text
        assert not looks_secret(text)
