"""The cluster files: what Ray and Kubernetes would make of them, without a cloud.

AWS and Google Cloud by Ray's own schema; KubeRay's manifests by the very function by which Ray's
autoscaler reads them, by the fields that KubeRay has, and, where SFTRAY_KUBERAY_CRDS names a folder
with its CRDs (helm-chart/kuberay-operator/crds), by their whole schema.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

REPO = Path(__file__).parents[2]
CLUSTER = REPO / "cluster"
LAUNCHER = ("aws", "gcp")
FILES = sorted(path for path in CLUSTER.rglob("*") if path.suffix in (".yaml", ".sh", ".py", ""))
TEXTS = {str(path.relative_to(REPO)): path.read_text() for path in FILES if path.is_file()}


def ray_version() -> str:
    """The Ray that is installed, tested with, and at least what pyproject.toml asks for."""
    dependencies = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["dependencies"]
    (floor,) = (found[1] for d in dependencies if (found := re.match(r"ray\[.*\]>=([\d.]+)", d)))
    (pinned,) = re.findall(r"^ray==([\d.]+)$", (REPO / "constraints.txt").read_text(), re.M)
    assert pinned.startswith(floor)
    return str(pinned)


def launcher(cloud: str) -> dict[str, Any]:
    """A launcher file as `ray up` completes it."""
    from ray.autoscaler._private.util import prepare_config

    config = yaml.safe_load((CLUSTER / f"{cloud}.yaml").read_text())
    prepared: dict[str, Any] = prepare_config(config)
    return prepared


def manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((CLUSTER / "kuberay" / f"{name}.yaml").read_text()))


def cluster_specs() -> dict[str, dict[str, Any]]:
    """The RayCluster specs of both manifests."""
    (cluster,), (job,) = manifests("raycluster"), manifests("rayjob")
    return {"raycluster": cluster["spec"], "rayjob": job["spec"]["rayClusterSpec"]}


# --- the launcher: AWS and Google Cloud


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_ray_accepts_the_launcher_file(cloud: str) -> None:
    from ray.autoscaler._private.util import validate_config

    validate_config(launcher(cloud))


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_head_trains_nothing_and_the_workers_come_and_go(cloud: str) -> None:
    config = launcher(cloud)
    head = config["available_node_types"][config["head_node_type"]]
    (worker,) = (t for t in config["available_node_types"].values() if t is not head)
    assert head["resources"]["GPU"] == 0
    assert head["max_workers"] == 0
    assert worker["resources"]["GPU"] == 1
    assert worker["min_workers"] == 0
    assert worker["max_workers"] == config["max_workers"] > 0
    assert config["idle_timeout_minutes"] <= 10
    assert config["provider"]["cache_stopped_nodes"] is False


def test_workers_are_spot_and_the_head_is_not() -> None:
    aws = launcher("aws")["available_node_types"]
    assert aws["gpu_spot"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in aws["head"]["node_config"]
    gcp = launcher("gcp")["available_node_types"]
    assert gcp["gpu_spot"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert "scheduling" not in gcp["head"]["node_config"]


def test_no_node_is_left_to_a_network_that_lets_the_world_in() -> None:
    """Where a node type names no group or subnet, Ray makes or takes one open to 0.0.0.0/0."""
    for node in launcher("aws")["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"]
        assert node["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
    for node in launcher("gcp")["available_node_types"].values():
        (interface,) = node["node_config"]["networkInterfaces"]
        assert interface["subnetwork"].endswith("/subnetworks/sftray")
        assert node["node_config"]["tags"] == {"items": ["sftray"]}


def test_head_and_workers_have_identities_of_their_own() -> None:
    aws = launcher("aws")["available_node_types"]
    names = [aws[n]["node_config"]["IamInstanceProfile"]["Name"] for n in ("head", "gpu_spot")]
    gcp = launcher("gcp")["available_node_types"]
    accounts = [gcp[n]["node_config"]["serviceAccounts"][0]["email"] for n in ("head", "gpu_spot")]
    assert names == ["sftray-head", "sftray-worker"]
    assert [account.partition("@")[0] for account in accounts] == names


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_token_is_asked_for_and_the_dashboard_is_the_head_s_own(cloud: str) -> None:
    config = launcher(cloud)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    head, worker = (config[f"{kind}_start_ray_commands"][-1] for kind in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1" in head
    for command in (head, worker):  # no secrets, no Ray
        assert command.index("node_env.py") < command.index('&& eval "$secrets" && ray start')


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_every_worker_watches_for_its_notice(cloud: str) -> None:
    from sftray.cluster.spot_notice import CLOUDS

    command = launcher(cloud)["worker_start_ray_commands"][-1]
    assert f"-m sftray.cluster.spot_notice {cloud} --address $RAY_HEAD_IP:6379" in command
    assert cloud in CLOUDS


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_start_commands_are_shell(cloud: str) -> None:
    config = launcher(cloud)
    for kind in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        for command in config[kind]:
            subprocess.run(["bash", "-n", "-c", command], check=True, timeout=600)
    for kind in ("head", "worker"):
        for command in config[f"{kind}_start_ray_commands"]:
            subprocess.run(["bash", "-n", "-c", command], check=True, timeout=600)


def test_images_are_pinned_to_the_ray_that_is_tested() -> None:
    version = ray_version()
    for cloud in LAUNCHER:
        docker = launcher(cloud)["docker"]
        assert docker["head_image"] == f"rayproject/ray:{version}-py312"
        assert docker["worker_image"] == f"rayproject/ray:{version}-py312-gpu"
    for spec in cluster_specs().values():
        assert spec["rayVersion"] == version
        for pod in pods(spec):
            assert pod["containers"][0]["image"].endswith(f"/sftray:{own_version()}-ray{version}")
    assert f"FROM rayproject/ray:{version}-py312-gpu\n" in TEXTS["cluster/Dockerfile"]


def test_torch_is_the_one_that_is_tested() -> None:
    (torch,) = re.findall(r"^torch==[\d.]+$", (REPO / "constraints.txt").read_text(), re.M)
    for name in ("cluster/aws.yaml", "cluster/gcp.yaml", "cluster/Dockerfile"):
        assert re.findall(r"torch==[\d.]+", TEXTS[name]) == [torch]


def own_version() -> str:
    return str(tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["version"])


# --- KubeRay


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_the_autoscaler_reads_the_manifest(name: str) -> None:
    from ray.autoscaler._private.kuberay import autoscaling_config

    cluster = {
        "metadata": {"name": "sftray", "namespace": "sftray"},
        "spec": cluster_specs()[name],
    }
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    head, worker = (config["available_node_types"][n] for n in ("headgroup", "gpu-spot"))
    assert head["resources"]["GPU"] == 0
    assert worker["resources"]["GPU"] == 1
    assert (worker["min_workers"], worker["max_workers"]) == (0, 4)
    assert config["idle_timeout_minutes"] == 5


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_the_limits_that_the_head_tells_are_the_autoscaler_s(name: str) -> None:
    from ray.autoscaler._private.kuberay import autoscaling_config

    from sftray.cluster.autoscaler_limits import group_of

    spec = cluster_specs()[name]
    cluster = {"metadata": {"name": "sftray", "namespace": "sftray"}, "spec": spec}
    config = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    head, worker = (config["available_node_types"][n] for n in ("headgroup", "gpu-spot"))
    hook = pods(spec)[0]["containers"][0]["lifecycle"]["postStart"]["exec"]["command"]
    told = [words.split() for words in re.findall(r"--group ((?:\S+ )+?)(?=--|>)", hook[-1])]
    head_told, worker_told = (group_of(words, "") for words in told)
    assert head_told.count == 1
    assert head_told.resources == {"CPU": head["resources"]["CPU"]}
    assert worker_told.count == worker["max_workers"]
    assert worker_told.resources == {k: worker["resources"][k] for k in ("CPU", "GPU")}


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_head_tells_the_limits_of_its_own_file(cloud: str) -> None:
    command = launcher(cloud)["head_start_ray_commands"][-1]
    (file,) = re.findall(r"--autoscaling-config=(\S+)", command)
    assert command.endswith(f"&& python -m sftray.cluster.autoscaler_limits --launcher {file}")


def test_a_job_s_cluster_is_the_cluster() -> None:
    specs = cluster_specs()
    assert specs["rayjob"] == specs["raycluster"]


def test_a_job_ends_and_takes_its_cluster_with_it() -> None:
    (job,) = manifests("rayjob")
    spec = job["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0  # a dead head is followed by one that goes on


def test_a_job_runs_a_sweep_that_there_is() -> None:
    """Its command line is checked by the sweep's own parser."""
    (job,) = manifests("rayjob")
    python, file, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert python == "python"
    sweep = REPO / Path(file).relative_to("/home/ray/sftray")
    done = subprocess.run(
        [sys.executable, str(sweep), *arguments, "--plan", "--help"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for flag in (a for a in arguments if a.startswith("--")):
        assert flag in done.stdout


def test_the_token_is_on_and_nothing_is_exposed() -> None:
    for spec in cluster_specs().values():
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert "enableIngress" not in spec["headGroupSpec"]
    (policy,) = (m for m in manifests("base") if m["kind"] == "NetworkPolicy")
    assert policy["spec"]["podSelector"] == {}
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
    assert all("podSelector" in peer and "ipBlock" not in peer for peer in peers)


def test_pods_are_confined_and_only_the_head_may_speak_to_kubernetes() -> None:
    for spec in cluster_specs().values():
        for pod in pods(spec):
            confined = pod["containers"][0]["securityContext"]
            assert confined["runAsNonRoot"] is True
            assert confined["allowPrivilegeEscalation"] is False
        (worker,) = spec["workerGroupSpecs"]
        assert worker["template"]["spec"]["automountServiceAccountToken"] is False


def test_the_head_is_kept_off_spot_nodes_and_workers_go_there() -> None:
    for spec in cluster_specs().values():
        head, worker = pods(spec)
        assert {e["operator"] for e in node_terms(head)} == {"NotIn"}
        assert {e["operator"] for e in node_terms(worker)} == {"In"}
        assert [e["key"] for e in node_terms(head)] == [e["key"] for e in node_terms(worker)]


def test_the_raylet_drains_before_the_pod_is_killed() -> None:
    for spec in cluster_specs().values():
        _, worker = pods(spec)
        env = {e["name"]: e["value"] for e in worker["containers"][0]["env"]}
        drain = float(env["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert 0 < drain < worker["terminationGracePeriodSeconds"]


def pods(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The pod specs of the head and of the workers."""
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def node_terms(pod: Mapping[str, Any]) -> list[dict[str, Any]]:
    required = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [e for term in required["nodeSelectorTerms"] for e in term["matchExpressions"]]


# The fields of ray.io/v1 that the manifests may use, from KubeRay's API reference. The operator
# drops a field that it does not know without a word: a typo would be a setting that is not there.
FIELDS: dict[str, dict[str, Any]] = {
    "RayJob": {
        "entrypoint": str,
        "submissionMode": ("K8sJobMode", "HTTPMode", "InteractiveMode"),
        "backoffLimit": int,
        "activeDeadlineSeconds": int,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "rayClusterSpec": "RayCluster",
    },
    "RayCluster": {
        "rayVersion": str,
        "authOptions": "AuthOptions",
        "enableInTreeAutoscaling": bool,
        "autoscalerOptions": "AutoscalerOptions",
        "headGroupSpec": "HeadGroup",
        "workerGroupSpecs": ["WorkerGroup"],
    },
    "AuthOptions": {"mode": ("token", "disabled"), "secretName": str},
    "AutoscalerOptions": {
        "version": ("v1", "v2"),
        "upscalingMode": ("Default", "Aggressive", "Conservative"),
        "idleTimeoutSeconds": int,
        "resources": dict,
    },
    "HeadGroup": {
        "serviceType": ("ClusterIP", "NodePort", "LoadBalancer"),
        "rayStartParams": "Strings",
        "template": "PodTemplate",
    },
    "WorkerGroup": {
        "groupName": str,
        "replicas": int,
        "minReplicas": int,
        "maxReplicas": int,
        "idleTimeoutSeconds": int,
        "rayStartParams": "Strings",
        "template": "PodTemplate",
    },
    "PodTemplate": {"metadata": dict, "spec": "Pod"},
    "Pod": {
        "serviceAccountName": str,
        "automountServiceAccountToken": bool,
        "restartPolicy": ("Never", "Always", "OnFailure"),
        "terminationGracePeriodSeconds": int,
        "affinity": dict,
        "tolerations": list,
        "containers": ["Container"],
        "volumes": list,
    },
    "Container": {
        "name": str,
        "image": str,
        "env": ["EnvVar"],
        "envFrom": list,
        "lifecycle": dict,
        "ports": list,
        "resources": dict,
        "securityContext": dict,
        "volumeMounts": list,
    },
    "EnvVar": {"name": str, "value": str},
}


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_every_field_is_one_that_kuberay_has(name: str) -> None:
    (manifest,) = manifests(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert list(unknown(manifest["spec"], manifest["kind"], manifest["kind"])) == []


def test_a_misspelt_field_is_found() -> None:
    spec = {"rayVersion": "2", "headGroupSpec": {"serviceTyp": "ClusterIP"}, "authOptions": {}}
    assert list(unknown(spec, "RayCluster", "spec")) == ["spec.headGroupSpec.serviceTyp"]
    assert list(unknown({"authOptions": {"mode": "on"}}, "RayCluster", "spec")) == [
        "spec.authOptions.mode"
    ]


def unknown(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Where a value has a field that its kind has not, or of another type."""
    if kind == "Strings":
        yield from (f"{where}.{k}" for k, v in value.items() if not isinstance(v, str))
    elif isinstance(kind, str):
        for name, inner in value.items():
            if name in FIELDS[kind]:
                yield from unknown(inner, FIELDS[kind][name], f"{where}.{name}")
            else:
                yield f"{where}.{name}"
    elif isinstance(kind, list):
        for i, inner in enumerate(value):
            yield from unknown(inner, kind[0], f"{where}[{i}]")
    elif isinstance(kind, tuple):
        if value not in kind:
            yield where
    elif type(value) is not kind:
        yield where


@pytest.mark.parametrize("name", ["raycluster", "rayjob"])
def test_the_manifest_fits_kuberay_s_crd(name: str) -> None:
    import jsonschema

    folder = os.environ.get("SFTRAY_KUBERAY_CRDS")
    if not folder:
        pytest.skip("SFTRAY_KUBERAY_CRDS names no folder with KubeRay's CRDs")
    crd = yaml.safe_load((Path(folder) / f"ray.io_{name}s.yaml").read_text())
    (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1")
    (manifest,) = manifests(name)
    jsonschema.validate(manifest, closed(version["schema"]["openAPIV3Schema"]))


def closed(schema: Any) -> Any:
    """A CRD's schema as JSON schema in which an object has no field but those it lists."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    inner = {key: closed(value) for key, value in schema.items() if key != "properties"}
    if "properties" in schema:
        inner["properties"] = {k: closed(v) for k, v in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get(
            "x-kubernetes-preserve-unknown-fields"
        ):
            inner["additionalProperties"] = False
    return inner


# --- secrets


@pytest.mark.parametrize("name", TEXTS)
def test_no_file_opens_a_port_to_the_world_or_holds_a_secret(name: str) -> None:
    text = TEXTS[name]
    assert "0.0.0.0" not in text
    assert "::/0" not in text
    assert not re.search(r"hostPort|hostNetwork|NodePort|type: *LoadBalancer", text)
    assert not re.search(r"RAY_AUTH_MODE[=: ]*(disabled|\"?\"?$)", text, re.M)
    assert not re.search(r"\b(hf_\w{20,}|AKIA\w{16}|[0-9a-f]{40,})", text)
    assert not re.search(r"(HF_TOKEN|WANDB_API_KEY|RAY_AUTH_TOKEN)[=:] *['\"]?\w", text)


def test_the_keys_of_the_docs_are_the_keys_that_pods_read() -> None:
    """And not the Secret of the cluster's name, which is the operator's, with Ray's token."""
    docs = (REPO / "docs" / "clusters.md").read_text()
    (made,) = re.findall(r"create secret generic (\S+)", docs)
    for spec in cluster_specs().values():
        for pod in pods(spec):
            (source,) = pod["containers"][0]["envFrom"]
            assert source["secretRef"] == {"name": made, "optional": True}
    (cluster,) = manifests("raycluster")
    assert cluster["metadata"]["name"] != made


def test_an_env_file_is_not_uploaded_with_a_job(tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    (tmp_path / ".rayignore").write_text((REPO / ".rayignore").read_text())
    excludes = get_excludes_from_ignore_files(tmp_path, include_gitignore=True)
    assert any(exclude(tmp_path / ".env") for exclude in excludes)
    assert not any(exclude(tmp_path / "sweeps") for exclude in excludes)


def test_the_docs_name_the_image_that_pods_run() -> None:
    docs = (REPO / "docs" / "clusters.md").read_text()
    assert set(re.findall(r"/(sftray:\S+)", docs)) == {f"sftray:{own_version()}-ray{ray_version()}"}


def test_a_node_s_secrets_are_lines_for_the_shell() -> None:
    node_env = load_node_env()
    lines = node_env.exports(json.dumps({"RAY_AUTH_TOKEN": "t", "HF_TOKEN": "it's $(a) `b`"}))
    done = subprocess.run(
        ["bash", "-c", f'{lines}\nprintf "%s|%s" "$RAY_AUTH_TOKEN" "$HF_TOKEN"'],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    assert done.stdout == "t|it's $(a) `b`"


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        ('{"HF_TOKEN": "x"}', "ray get-auth-token --generate"),
        ('{"RAY_AUTH_TOKEN": 1}', "JSON object of strings"),
        ('{"RAY_AUTH_TOKEN": "t", "a; rm": "x"}', "must be like HF_TOKEN"),
    ],
)
def test_a_secret_that_would_leave_a_cluster_open_is_refused(secret: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_node_env().exports(secret)


class GoogleSecrets(BaseHTTPRequestHandler):
    """The metadata service and Secret Manager, with the refusals that the real ones make."""

    def do_GET(self) -> None:
        metadata = self.headers.get("Metadata-Flavor") == "Google"
        allowed = self.headers.get("Authorization") == "Bearer ya29"
        data = base64.b64encode(b'{"RAY_AUTH_TOKEN": "t"}').decode()
        answers = {
            "/computeMetadata/v1/project/project-id": (metadata, "my-project"),
            "/computeMetadata/v1/instance/service-accounts/default/token": (
                metadata,
                json.dumps({"access_token": "ya29"}),
            ),
            "/v1/projects/my-project/secrets/sftray/versions/latest:access": (
                allowed,
                json.dumps({"payload": {"data": data}}),
            ),
        }
        known, text = answers.get(self.path, (False, ""))
        self.send_response(200 if known else 403)
        self.end_headers()
        self.wfile.write(text.encode() if known else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def test_google_s_secret_is_read_with_the_node_s_own_identity() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), GoogleSecrets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        secret = load_node_env().gcp_secret("sftray", metadata=url, secrets=url)
    finally:
        server.shutdown()
        server.server_close()
    assert json.loads(secret) == {"RAY_AUTH_TOKEN": "t"}


def load_node_env() -> Any:
    import importlib.util

    spec = importlib.util.spec_from_file_location("node_env", CLUSTER / "node_env.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the set-up scripts, on stand-ins of the clouds' command lines

STAND_IN = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0") $*" in
  "curl "*) echo 203.0.113.7 ;;
  "ray get-auth-token"*) printf the-token ;;
  "aws sts "*) echo 123456789012 ;;
  "aws ec2 describe-security-groups "*) echo None ;;
  "aws ec2 create-security-group "*) echo sg-0abc ;;
  "aws iam put-role-policy "*) printf '%s\\0' "${@: -1}" >> "$LOG.policies" ;;
  "aws secretsmanager create-secret "*) file="${@: -1}" && cp "${file#file://}" "$LOG.secret" ;;
  "gcloud secrets create "*) cat > "$LOG.secret" ;;
  *describe*|"aws s3api head-bucket"*|"aws iam get-role "*) exit 1 ;;
esac
"""


def run_setup(cloud: str, folder: Path) -> str:
    """Run a set-up script on a copy of its folder; every command that it gave."""
    copy, commands = folder / "cluster", folder / "bin"
    copy.mkdir()
    commands.mkdir()
    for name in (f"{cloud}.yaml", f"{cloud}_setup.sh"):
        (copy / name).write_text((CLUSTER / name).read_text())
    for name in ("aws", "gcloud", "curl", "ray"):
        (commands / name).write_text(STAND_IN)
        (commands / name).chmod(0o755)
    env = {
        **os.environ,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(folder / "log"),
        "BUCKET": "my-sweeps",
        "PROJECT": "my-project",
        "REGION": "eu-west-1",
        "HF_TOKEN": "for-the-hub",
    }
    script = ["bash", str(copy / f"{cloud}_setup.sh")]
    subprocess.run(script, env=env, check=True, timeout=600, capture_output=True)
    return (folder / "log").read_text()


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_set_up_opens_ssh_to_this_address_only(cloud: str, tmp_path: Path) -> None:
    log = run_setup(cloud, tmp_path)
    ranges = re.findall(r"(?:--cidr|--source-ranges) (\S+)", log)
    assert ranges == ["203.0.113.7/32"]


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_set_up_shows_no_secret_on_a_command_line(cloud: str, tmp_path: Path) -> None:
    log = run_setup(cloud, tmp_path)
    assert "the-token" not in log
    assert "for-the-hub" not in log
    secret = json.loads((tmp_path / "log.secret").read_text())
    assert secret["RAY_AUTH_TOKEN"] == "the-token"
    assert secret["HF_TOKEN"] == "for-the-hub"


def test_the_workers_role_may_touch_one_bucket_and_one_secret(tmp_path: Path) -> None:
    run_setup("aws", tmp_path)
    texts = (tmp_path / "log.policies").read_text().split("\0")[:2]
    worker, head = ([s["Action"] for s in json.loads(text)["Statement"]] for text in texts)
    resources = {r for s in json.loads(texts[0])["Statement"] for r in [s["Resource"]]}
    assert all("my-sweeps" in r or ":secret:sftray-" in r for r in resources)
    assert head[: len(worker)] == worker
    assert "iam:PassRole" in head


@pytest.mark.parametrize("cloud", LAUNCHER)
def test_the_set_up_fills_in_a_file_that_ray_accepts(cloud: str, tmp_path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    run_setup(cloud, tmp_path)
    text = (tmp_path / "cluster" / f"{cloud}.yaml").read_text()
    assert not re.search(r"\w-EDIT", text)
    config = yaml.safe_load(text)
    assert config["provider"]["region"] == "eu-west-1"
    validate_config(prepare_config(config))
