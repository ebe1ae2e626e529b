"""Whether the CUDA that an image was built on runs on a host's driver.

Source: table 1 of docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html (NVIDIA):
any toolkit of a major version runs on a driver of at least this branch, and newer drivers run older toolkits. Forward
compatibility (the cuda-compat package, data centre GPUs only) is left aside: whether an image carries it cannot be seen
from outside, and a driver of the right branch needs none of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from stack.errors import Problem

# CUDA major version -> lowest driver branch.
LOWEST_BRANCH = {11: 450, 12: 525, 13: 580}


def problems(major: int | None, drivers: Collection[str], image: str) -> Iterator[Problem]:
    """Drivers (as `580.95.05`) that are too old for CUDA `major`; None: not known, so nothing is said."""
    lowest = LOWEST_BRANCH.get(major or 0)
    for driver in sorted(set(drivers)):
        if lowest is not None and branch(driver) < lowest:
            yield Problem(
                "device",
                f"{image} is built on CUDA {major}, which needs driver branch {lowest} or newer, and this host has"
                f" {driver}: update the driver, or pin an image for CUDA 12 (its tag has -cu12) in compose/images.yaml",
            )


def branch(driver: str) -> int:
    """580 of 580.95.05; 0 when it is no version."""
    found = re.match(r"(\d+)\.", driver)
    return int(found[1]) if found else 0


def major_in(environment: Collection[str] | None) -> int | None:
    """CUDA's major version as an image's own environment says it: CUDA_VERSION=13.0.2 of NVIDIA's base images."""
    variables: Mapping[str, Any] = dict(item.split("=", 1) for item in environment or () if "=" in item)
    found = re.match(r"(\d+)\.", str(variables.get("CUDA_VERSION", "")))
    return int(found[1]) if found else None
