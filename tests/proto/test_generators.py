"""Generators for other languages take the contract as it is, without flags, and what they make compiles."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTOS = sorted(path.relative_to(ROOT / "proto") for path in (ROOT / "proto").glob("plait/**/*.proto"))
HANG_S = 300

REGISTER = 'import { register } from "node:module"; register("./resolve.js", import.meta.url);'
RESOLVE = """\
// Bundlers find a module without its extension, as the generator writes imports; Node itself does not.
export const resolve = (name, context, next) => next(name.endsWith("_pb") ? name + ".js" : name, context);
"""


def run(*command: str | Path, folder: Path, env: dict[str, str] | None = None) -> str:
    """Run a command to its end and return what it printed; fail with that if the command fails."""
    ended = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="session")
def tools() -> Path:
    """Return the folder that scripts/generators has filled; CI calls it before the tests."""
    found = subprocess.run(
        ["scripts/generators", "--built"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    if found.returncode:
        pytest.skip(f"the generators are not installed: {found.stderr.strip()}")
    return Path(found.stdout.strip())


def generate(tools: Path, language: str, target: Path, *, plugin: Path | None = None) -> None:
    """Generate a language's code from the whole contract, without options of the generator."""
    if plugin is not None and not plugin.exists():
        pytest.skip(f"{plugin.name} is not installed: scripts/generators found no tool to install it with")
    plugins = [] if plugin is None else [f"--plugin={plugin}"]
    run(
        tools / "protoc/bin/protoc",
        f"--proto_path={ROOT / 'proto'}",
        f"--{language}_out={target}",
        *plugins,
        *map(str, PROTOS),
        folder=target,
    )


def test_go_code_is_generated_and_compiles(tools: Path, tmp_path: Path) -> None:
    generate(tools, "go", tmp_path, plugin=tools / "go/protoc-gen-go")
    for name in ("go.mod", "go.sum"):
        (tmp_path / name).write_bytes((tools / "go" / name).read_bytes())
    run("go", "build", "./...", folder=tmp_path, env={"GOFLAGS": "-mod=readonly"})


def test_typescript_code_is_generated_and_loads(tools: Path, tmp_path: Path) -> None:
    generate(tools, "es", tmp_path, plugin=tools / "node/node_modules/.bin/protoc-gen-es")
    (tmp_path / "node_modules").symlink_to(tools / "node/node_modules")
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "resolve.js").write_text(RESOLVE)
    loads = [f'await import("./{path.with_suffix("")}_pb");' for path in PROTOS]
    (tmp_path / "load.js").write_text("\n".join([REGISTER, *loads, 'console.log("loaded");']))
    assert run("node", "load.js", folder=tmp_path) == "loaded\n"


def test_java_code_is_generated_with_a_file_for_each_message(tools: Path, tmp_path: Path) -> None:
    generate(tools, "java", tmp_path)
    for name in ("Graph", "GraphProto", "Event", "EventProto", "ErrorReason", "ErrorReasonProto"):
        assert (tmp_path / f"io/plait/v1/{name}.java").exists()


def test_csharp_code_is_generated_in_a_namespace_of_the_version(tools: Path, tmp_path: Path) -> None:
    generate(tools, "csharp", tmp_path)
    assert "namespace Plait.V1 {" in (tmp_path / "Graph.cs").read_text(encoding="utf-8")
