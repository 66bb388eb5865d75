"""An environment for each peer, with the pins of peers/<peer>.txt, and a run of its script in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

PINS = Path(__file__).parent / "peers"
DEFAULT = Path.home() / ".cache" / "headrace-peers"


class PeerError(RuntimeError):
    """A peer could not be installed, or its run failed; its rows are left out."""


def ensure(peer: str, folder: Path) -> Path:
    """The Python of this peer's environment below `folder`, made where it is not there yet with the pins of today.

    Raises:
        PeerError: pip failed; it says with what.
    """
    pins = PINS / f"{peer}.txt"
    digest = hashlib.sha256(pins.read_bytes() + sys.version.encode()).hexdigest()
    place = folder / peer
    python = place / "bin" / "python"
    mark = place / "pins.sha256"
    if not mark.is_file() or mark.read_text() != digest:
        print(f"installing {peer} into {place} ...", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True, symlinks=True)
        tried = subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", pins], capture_output=True, text=True)
        if tried.returncode:
            raise PeerError(f"{peer}: pip install -r {pins} failed: {_last_lines(tried.stderr)}")
        mark.write_text(digest)
    return python


def run(peer: str, folder: Path, spec: dict[str, Any], work: Path) -> dict[str, Any]:
    """Run peers/run_<peer>.py with this spec, which names its inputs, in the peer's own environment and with `work` as its folder.

    Returns:
        What the script left in result.json, and "whole": the seconds of its process from start to end.

    Raises:
        PeerError: the script failed.
    """
    python = ensure(peer, folder).absolute()
    script = PINS / f"run_{peer.replace('-', '_')}.py"
    return run_script([str(python), str(script.absolute())], spec, work, named=peer)


def run_script(command: list[str], spec: dict[str, Any], work: Path, named: str) -> dict[str, Any]:
    """Run a command whose arguments are a JSON file and whose result is result.json beside it; as `run`."""
    work.mkdir(parents=True)
    (work / "spec.json").write_text(json.dumps({**spec, "work": str(work)}))
    # Nothing of this process's Python, nor a hub of models, may reach into a peer; a thread a worker on either side.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "RAY_"))}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(work / "hf"), "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    started = time.perf_counter()
    with (work / "output.txt").open("w") as output:
        command = [*command, str(work / "spec.json")]
        code = subprocess.run(command, cwd=work, env=inherited | quiet, stdout=output, stderr=subprocess.STDOUT).returncode
    seconds = time.perf_counter() - started
    if code or not (work / "result.json").is_file():
        raise PeerError(f"{named}: {' '.join(command)} ended with {code}: {_last_lines((work / 'output.txt').read_text())}")
    return {**json.loads((work / "result.json").read_text()), "whole": seconds}


def _last_lines(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-5:])
