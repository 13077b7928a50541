"""What docs/gates says: its files are read, its configurations taken by the real programs, its commands parsed."""

from __future__ import annotations

import base64
import importlib
import re
import shlex
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from support.relying import ANCHORS
from weighbridge.attester.keys import ensure_keys
from weighbridge.proto.errors import Code
from weighbridge.verifier import cli
from weighbridge.verifier.gate.configuration import GateFile
from weighbridge.verifier.gate.ext_authz import EXTENSIONS
from weighbridge.verifier.gate.hook import environment

# Comes with what the locked tools need; it has no types.
yaml: Any = importlib.import_module("yaml")
ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs/gates"
ENVOY = ROOT / ".peers/envoy/bin/envoy"
NGINX = shutil.which("nginx") or "/usr/sbin/nginx"


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def example() -> GateFile:
    (block,) = blocks("README.md", "json")
    return GateFile.parse(block.encode())


def test_the_file_is_a_gates_file() -> None:
    assert [route.name for route in example().routes] == ["chat"]


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_commands_are_what_the_command_line_takes(name: str) -> None:
    taken = 0
    for block in blocks(name, "sh"):
        for command in block.replace("\\\n", " ").splitlines():
            words = shlex.split(command)
            if words[:1] == ["weighbridge"]:
                cli.parser().parse_args(words[1:])
                taken += 1
    assert taken or name in {"kubernetes.md", "asgi.md"}


def test_codes_are_codes() -> None:
    rows = re.findall(r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \|", (DOCS / "README.md").read_text(), re.MULTILINE)
    named = {code for row in rows for code in re.findall(r"[A-Z_]+", row)}
    assert len(named) > 15
    assert named <= set(Code.__members__)


def test_the_pins_are_the_examples_key() -> None:
    pin = base64.b64encode(bytes.fromhex(str(example().sessions[0].cnf))).decode()
    for name in ("envoy.md", "kubernetes.md"):
        assert set(re.findall(r'verify_certificate_spki: \["(.*)"\]', (DOCS / name).read_text())) == {pin}


@pytest.mark.skipif(not ENVOY.exists(), reason="no Envoy: scripts/setup --peers")
def test_envoy_takes_the_configuration(tmp_path: Path) -> None:
    (block,) = blocks("envoy.md", "yaml")
    path = tmp_path / "envoy.yaml"
    path.write_text(block)
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "--config-path", path], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said: Any = yaml.safe_load(block)
    manager = said["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["http_filters"][0]["typed_config"]["failure_mode_allow"] is False
    (name,) = re.findall(r"context_extensions: \{(\w+):", block)
    assert name in EXTENSIONS


@pytest.mark.skipif(not Path(NGINX).exists(), reason="no nginx: scripts/setup --peers")
def test_nginx_takes_the_configuration(tmp_path: Path) -> None:
    ensure_keys(tmp_path, names=["gpu-a.example"], at=datetime.now(UTC))
    (block,) = blocks("nginx.md", "nginx")
    server = block.replace("/etc/nginx/h100-a.pem", str(tmp_path / "serving.pem"))
    temporary = "".join(
        f"{name}_temp_path {tmp_path}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = tmp_path / "nginx.conf"
    path.write_text(
        f"pid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{ access_log off; {temporary}\n{server} }}\n"
    )
    done = subprocess.run(
        [NGINX, "-t", "-p", tmp_path, "-e", "stderr", "-c", path],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_kubernetes_is_yaml_whose_gate_is_started_as_it_can_be() -> None:
    documents: list[Any] = [yaml.safe_load(block) for block in blocks("kubernetes.md", "yaml")]
    assert [one["kind"] for one in documents] == ["Deployment", "SecurityPolicy", "EnvoyPatchPolicy"]
    gate = documents[0]["spec"]["template"]["spec"]["containers"][0]
    cli.parser().parse_args(gate["args"])
    assert documents[1]["spec"]["extAuth"]["failOpen"] is False


def test_the_python_server_is_gated(tmp_path: Path) -> None:
    made: dict[str, Any] = {}
    for block in blocks("asgi.md", "python"):
        exec(compile(block, "asgi.md", "exec"), made)  # noqa: S102 - a document of ours
    (tmp_path / "anchors.json").write_bytes(ANCHORS.encode())
    (tmp_path / "gates.json").write_bytes(example().encode())
    for name in ("ca.pem", "gate.key", "gate.pem"):
        (tmp_path / name).write_bytes(b"")
    assert callable(made["gated"](None, tmp_path))


def test_the_command_is_told_what_the_document_says() -> None:
    text = (DOCS / "exec.md").read_text()
    assert set(environment(None)) == {"WEIGHBRIDGE_GATE", "WEIGHBRIDGE_REASON"}
    for name in ("GATE", "NAME", "SESSION", "TENANT", "MODEL", "RESULT", "STATUS", "SEQ", "CNF", "EXPIRES", "CODE"):
        assert f"_{name}`" in text, name
