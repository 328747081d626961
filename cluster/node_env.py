"""A node's secrets from the cloud's secret manager, as lines for a shell to evaluate.

    secrets="$(python cluster/node_env.py aws sftray us-east-1)" && eval "$secrets"
    secrets="$(python cluster/node_env.py gcp sftray)" && eval "$secrets"

Promise: the node's own identity is the only key; nothing is written to a disk, a YAML or a log. The
secret is one JSON object of strings: RAY_AUTH_TOKEN, without which the node must not start, and
what the sweep needs of HF_TOKEN and WANDB_API_KEY. Price: one request; boto3 on AWS, the standard
library on Google Cloud.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import sys
import urllib.request

SECONDS = 10.0
"""How long one request may take."""
GCP_METADATA = "http://metadata.google.internal"
GCP_SECRETS = "https://secretmanager.googleapis.com"


def main(arguments: list[str]) -> str:
    """The export lines of the secret that the command line names."""
    cloud, name, *region = arguments
    return exports(aws_secret(name, *region) if cloud == "aws" else gcp_secret(name))


def exports(secret: str) -> str:
    """A JSON object of strings as export lines. Raises ValueError where it is no such object or
    lacks the token that keeps strangers out."""
    values = json.loads(secret)
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise ValueError("the secret: must be a JSON object of strings")
    for name in values:
        if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
            raise ValueError(f"the secret: got the name {name!r}, must be like HF_TOKEN")
    if not values.get("RAY_AUTH_TOKEN"):
        raise ValueError(
            "the secret: has no RAY_AUTH_TOKEN; put the output of "
            "`ray get-auth-token --generate` in it"
        )
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in values.items())


def aws_secret(name: str, region: str) -> str:
    """A secret of AWS Secrets Manager, by the instance profile."""
    import boto3
    from botocore.config import Config

    patience = Config(connect_timeout=SECONDS, read_timeout=SECONDS, retries={"max_attempts": 3})
    client = boto3.client("secretsmanager", region_name=region, config=patience)
    return str(client.get_secret_value(SecretId=name)["SecretString"])


def gcp_secret(name: str, metadata: str = GCP_METADATA, secrets: str = GCP_SECRETS) -> str:
    """The latest version of a secret of Google's Secret Manager, by the service account."""
    flavor = {"Metadata-Flavor": "Google"}
    project = _answer(f"{metadata}/computeMetadata/v1/project/project-id", flavor)
    account = f"{metadata}/computeMetadata/v1/instance/service-accounts/default/token"
    token = json.loads(_answer(account, flavor))["access_token"]
    version = f"{secrets}/v1/projects/{project}/secrets/{name}/versions/latest:access"
    payload = json.loads(_answer(version, {"Authorization": f"Bearer {token}"}))["payload"]
    return base64.b64decode(payload["data"]).decode("utf-8")


def _answer(url: str, headers: dict[str, str]) -> str:
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return str(answer.read().decode("utf-8"))


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]) + "\n")
