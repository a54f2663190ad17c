"""`scripts/jaeger` says what is missing, and takes what is built already."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
HANG_S = 60.0
"""No test waits for this: it is when a script that hangs is given up."""


def run(home: Path, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script for a user who has built nothing yet."""
    kept = {name: value for name, value in os.environ.items() if name != "XDG_CACHE_HOME"}
    return subprocess.run(
        [ROOT / "scripts/jaeger", *arguments],
        env=kept | {"HOME": str(home), "PATH": path or os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """Return a folder with what the script needs, and no Go."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "mkdir", "sed", "tail", "cp", "mv", "rm", "chmod", "mktemp"):
        (tools / name).symlink_to(f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}")
    return tools


def go(tools: Path, script: str) -> None:
    """Put a Go into a folder."""
    (tools / "go").write_text(f"#!/bin/bash\n{script}\n")
    (tools / "go").chmod(0o755)


def test_without_go_it_says_what_it_needs(tmp_path: Path, tools: Path) -> None:
    done = run(tmp_path, path=str(tools))
    assert done.returncode == 1
    assert "needs Go 1.24.6 or newer, and there is no go on the PATH" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("version", ["go1.22", "go1.24.5", "go1.9rc2"])
def test_an_old_go_is_refused_before_anything_is_downloaded(
    tmp_path: Path, tools: Path, version: str
) -> None:
    go(tools, f'[ "$1" = env ] && echo {version} || echo "$@" >>{tmp_path}/calls')
    done = run(tmp_path, path=str(tools))
    assert done.returncode == 1
    assert f"and this is {version}" in done.stderr
    assert not (tmp_path / "calls").exists()


def test_another_module_than_the_one_meant_is_not_built(tmp_path: Path, tools: Path) -> None:
    """As one that a proxy has changed; and nothing of it is left."""
    go(
        tools,
        f"""case $1 in
        env) echo go1.25.1 ;;
        mod) printf '{{\\n\\t"Dir": "/",\\n\\t"Sum": "h1:other="\\n}}\\n' ;;
        *) echo "$@" >>{tmp_path}/calls ;;
        esac""",
    )
    done = run(tmp_path, path=str(tools))
    assert done.returncode == 1
    assert "has the sum h1:other=, and should have h1:" in done.stderr
    assert not (tmp_path / "calls").exists()
    cache = tmp_path / ".cache/plait/jaeger-v1.76.0"
    assert [path for path in cache.iterdir() if path.name != "lock"] == []


def test_what_is_built_is_named_without_a_build(tmp_path: Path, tools: Path) -> None:
    done = run(tmp_path, "--built", path=str(tools))
    assert done.returncode == 1
    assert "scripts/jaeger builds it" in done.stderr
    binary = tmp_path / ".cache/plait/jaeger-v1.76.0/jaeger"
    binary.parent.mkdir(parents=True)
    binary.touch(mode=0o755)
    for arguments in ((), ("--built",)):
        done = run(tmp_path, *arguments, path=str(tools))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{binary}\n", "")
