"""Dockerfile, compose.yaml and the Kubernetes manifest agree with the server that they start.

There may be no Docker here: the files are parsed, and the server's configuration is checked as it would be there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cli import live

ROOT: Final = live.ROOT
USER: Final = "10001"
WRITABLE: Final = ("/var/lib/plait", "/tmp")

Yaml = dict[str, Any]


def dockerfile() -> list[list[str]]:
    """Return the instructions of the Dockerfile, each as its words; arrays stand as they are."""
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = (line for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return [line.split() for line in lines]


def stage(name: str) -> list[list[str]]:
    """Return the instructions of a stage."""
    found: list[list[str]] = []
    current = ""
    for words in dockerfile():
        if words[0] == "FROM":
            current = words[3]
        elif current == name:
            found.append(words)
    return found


def of_kind(kind: str, name: str) -> str:
    return " ".join(next(words for words in stage(name) if words[0] == kind)[1:])


def image_variables(name: str) -> dict[str, str]:
    pairs = [word.split("=", 1) for words in stage(name) if words[0] == "ENV" for word in words[1:]]
    return {key: value for key, value in pairs if key.startswith("PLAIT_")}


def compose() -> Yaml:
    document: Yaml = yaml.safe_load((ROOT / "compose.yaml").read_text())
    return document


def manifest(kind: str, name: str = "plait") -> Yaml:
    documents: Iterator[Yaml] = yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text())
    return next(each for each in documents if (each["kind"], each["metadata"]["name"]) == (kind, name))


def pod(kind: str, name: str = "plait") -> Yaml:
    found: Yaml = manifest(kind, name)["spec"]["template"]["spec"]
    return found


def check(arguments: list[str], variables: Mapping[str, str]) -> dict[str, str]:
    """Have the configuration of a `plait serve` checked; return its values."""
    assert arguments[0] == "serve"
    done = live.call("config", "check", "--no-files", *arguments[1:], env=variables)
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1].strip('"') for line in done.stdout.splitlines()}


@pytest.mark.parametrize("name", ["server", "worker"])
def test_images_run_as_a_numeric_user_without_rights(name: str) -> None:
    assert of_kind("USER", name) == f"{USER}:{USER}"
    entry = yaml.safe_load(of_kind("ENTRYPOINT", name))
    assert entry[0] == "plait"


def test_images_install_what_the_locks_name_and_nothing_else() -> None:
    installs = [
        part for words in stage("build") for part in " ".join(words).split("&&") if " install" in part
    ]
    assert installs
    for install in installs:
        assert "--require-hashes" in install or ("--no-deps" in install and "/wheels/" in install), install
    locks = set(re.findall(r"requirements/\w+\.lock", (ROOT / "Dockerfile").read_text()))
    assert all((ROOT / lock).exists() for lock in locks)
    kept = (ROOT / ".dockerignore").read_text().splitlines()
    assert {f"!{lock}" for lock in locks} <= set(kept)
    assert all((ROOT / line[1:]).exists() for line in kept if line.startswith("!"))


def test_the_health_check_needs_no_shell() -> None:
    words = of_kind("HEALTHCHECK", "server")
    assert yaml.safe_load(words[words.index("CMD") + 3 :]) == ["plait", "health"]
    assert live.call("health", "--help").returncode == 0


def test_the_image_of_the_server_starts_only_with_protection_or_insecure() -> None:
    variables = image_variables("server")
    arguments = yaml.safe_load(of_kind("CMD", "server"))
    refused = live.call("config", "check", env=variables)
    assert refused.returncode == 2
    assert "--insecure" in refused.stderr
    values = check([*arguments, "--insecure"], variables)
    assert values["listen"] == f"0.0.0.0:{of_kind('EXPOSE', 'server')}"
    assert values["store"].startswith(of_kind("VOLUME", "server"))


def test_compose_starts_what_the_images_hold() -> None:
    services: Yaml = compose()["services"]
    server, worker = services["server"], services["worker"]
    values = check(
        server["command"],
        image_variables("server") | {key: str(value) for key, value in server["environment"].items()},
    )
    port = values["listen"].rpartition(":")[2]
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert worker["command"][-1] == f"server:{port}"
    assert {service["build"]["target"] for service in (server, worker)} == {"server", "worker"}
    mounts = [volume.partition(":")[2] for volume in server["volumes"]]
    assert mounts == [WRITABLE[0]]


def test_compose_opens_ports_to_this_machine_alone_and_nothing_is_writable() -> None:
    for name, service in compose()["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["networks"] == ["plait"]
        if "build" in service:
            assert service["read_only"] is True
            assert service["tmpfs"] == ["/tmp"]
            assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize(("kind", "name"), [("StatefulSet", "plait"), ("Deployment", "plait-worker")])
def test_pods_run_without_rights(kind: str, name: str) -> None:
    spec = pod(kind, name)
    context = spec["securityContext"]
    assert context["runAsNonRoot"] is True
    assert str(context["runAsUser"]) == str(context["runAsGroup"]) == USER
    # Else each service of the namespace would put its variables into the environment, and PLAIT_ ones are the server's.
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
        writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert set(writable) <= set(WRITABLE)
        names = {volume["name"] for volume in spec["volumes"]} | {"store"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= names


def test_the_server_of_the_manifest_has_tls_tokens_and_one_replica(tmp_path: Path) -> None:
    [server] = pod("StatefulSet")["containers"]
    config = tmp_path / "plait.toml"
    config.write_text(manifest("ConfigMap")["data"]["plait.toml"])
    variables = {each["name"]: each["value"] for each in server["env"]}
    assert variables.pop("PLAIT_CONFIG") in {mount["mountPath"] for mount in server["volumeMounts"]}
    values = check(server["args"], image_variables("server") | variables | {"PLAIT_CONFIG": str(config)})
    assert values["insecure"] == "false"
    mounts = tuple(mount["mountPath"] for mount in server["volumeMounts"])
    for option in ("store", "tls_cert", "tls_key", "tokens_file"):
        assert values[option].startswith(mounts), option
    assert variables["PLAIT_TLS_CA"].startswith(mounts)
    port = int(values["listen"].rpartition(":")[2])
    assert [each["containerPort"] for each in server["ports"]] == [port]
    assert variables["PLAIT_SERVER"] == f"https://localhost:{port}"
    assert [each["port"] for each in manifest("Service")["spec"]["ports"]] == [port]
    assert manifest("StatefulSet")["spec"]["replicas"] == 1
    stop_s = float(values["stop_delay_s"]) + 10
    assert pod("StatefulSet")["terminationGracePeriodSeconds"] >= stop_s


def test_workers_of_the_manifest_reach_the_service_by_tls_with_a_token() -> None:
    [worker] = pod("Deployment", "plait-worker")["containers"]
    port = manifest("Service")["spec"]["ports"][0]["port"]
    assert f"https://plait:{port}" in worker["args"]
    mounts = tuple(mount["mountPath"] for mount in worker["volumeMounts"])
    variables = {each["name"]: each.get("value", "") for each in worker["env"]}
    assert variables["PLAIT_TLS_CA"].startswith(mounts)
    assert variables["PLAIT_TOKEN_FILE"].startswith(mounts)
    options = {word for word in worker["args"] if word.startswith("--")}
    shown = live.call("worker", "--help").stdout
    assert all(re.search(rf"{option}\b", shown) for option in options)


def test_commands_in_the_comments_are_those_of_the_cli() -> None:
    text = (ROOT / "compose.yaml").read_text() + (ROOT / "deploy" / "kubernetes.yaml").read_text()
    [submit] = re.findall(r"#   plait (submit .*?--watch)", text)
    file, *options = shlex.split(submit)[1:]
    assert (ROOT / file).exists()
    assert [option for option in options if option.startswith("--")] == ["--input", "--watch"]
