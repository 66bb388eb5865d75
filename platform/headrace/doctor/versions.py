"""Python and packages against the bounds that this project's metadata gives them."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from headrace.doctor.finding import Finding, error, ok

NAMED = ("ray", "torch", "deepspeed", "pyarrow", "polars")  # whose versions a report of a fault should give


def python(bounds: str | None = None) -> Finding:
    """This interpreter against `requires-python`."""
    bounds = importlib.metadata.metadata("headrace")["Requires-Python"] if bounds is None else bounds
    version = ".".join(map(str, sys.version_info[:3]))
    if version not in SpecifierSet(bounds):
        return error("python", f"{version}, {bounds} is required", f"make an environment of a Python {bounds} and install headrace there.")
    return ok("python", f"{version}, {sys.executable}")


def packages(requirements: Iterable[str] | None = None) -> list[Finding]:
    """The installed packages against the project's requirements, extras left out: an error for each that does not fit."""
    wanted = [Requirement(line) for line in (importlib.metadata.requires("headrace") or [] if requirements is None else requirements)]
    wanted = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    found, versions = [], {}
    for each in wanted:
        try:
            versions[each.name] = version = importlib.metadata.version(each.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(error(each.name, "not installed", f"pip install '{each}'"))
            continue
        if not each.specifier.contains(version, prereleases=True):
            found.append(error(each.name, f"{version}, but {each.specifier} is what headrace is tested with", f"pip install '{each}'"))
    named = ", ".join(f"{name} {versions[name]}" for name in NAMED if name in versions)
    return found or [ok("packages", f"{len(versions)} of {len(wanted)} as required: {named}")]
