"""What a machine runs with: versions of Python and of what headrace needs, and a digest of headrace's own files.

This very file is sent with a submitted run and started there before anything else (`python environment.py FOLDER`), so it knows nothing
but Python itself: it must be able to say that headrace is missing.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from pathlib import Path

CONFIGURATION = 2  # as in headrace.control.exits
RUN, EXPECTED = "config.yaml", "expected.json"


def environment() -> dict[str, str]:
    """Versions of Python, headrace and every distribution that it requires, and "headrace files", a digest; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in ["headrace", *_required()]:
        try:
            # Without what comes after "+": a build for the CPU here and one for CUDA there are one version.
            found[name] = importlib.metadata.version(name).partition("+")[0]
        except importlib.metadata.PackageNotFoundError:
            continue
    package = package_folder()
    if package is not None:
        found["headrace files"] = digest(package)
    return found


def _required() -> list[str]:
    """Names of the distributions that headrace requires, extras aside."""
    try:
        lines = importlib.metadata.requires("headrace") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    names = [re.match(r"[A-Za-z0-9._-]+", line) for line in lines if "extra ==" not in line]
    return sorted(match.group().lower() for match in names if match)


def package_folder() -> Path | None:
    """Folder of the headrace package that Python would import; None where there is none."""
    spec = importlib.util.find_spec("headrace")
    return Path(spec.origin).parent if spec and spec.origin else None


def digest(package: Path) -> str:
    """SHA-256 over names and contents of the package's Python files, shortened to 16 digits."""
    found = hashlib.sha256()
    for path in sorted(package.rglob("*.py"), key=lambda path: path.relative_to(package).as_posix()):
        content = path.read_bytes()
        found.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        found.update(content)
    return found.hexdigest()[:16]


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """A sentence for everything of `here` that `there` lacks or has in another version."""
    found = []
    for name, wanted in here.items():
        if name not in there:
            found.append(f"{name} {wanted} is here, and none on the cluster")
        elif there[name] != wanted:
            found.append(f"{name} is {wanted} here, {there[name]} on the cluster")
    return found


def main(folder: Path) -> None:
    """Compare this environment with the submitter's, then become the driver of the run."""
    expected = json.loads((folder / EXPECTED).read_text())
    wrong = differences(expected["environment"], environment())
    if wrong:
        for sentence in wrong:
            print(f"headrace: {sentence}", file=sys.stderr)
        print("headrace: the environments must be equal; use the image or the lock file of one on the other", file=sys.stderr)
        sys.exit(CONFIGURATION)
    package = package_folder()
    assert package is not None  # else it would have differed
    script = package.parents[1] / "jobs" / "drive_run.py"
    command = [sys.executable, str(script), str(folder / RUN), expected["upto"]]
    sys.stdout.flush()
    os.execv(command[0], command)  # the process that Ray stops is then the driver itself


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
