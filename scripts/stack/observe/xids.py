"""NVIDIA's Xid errors of A100-class GPUs: what each means, what to do, and whether it wakes somebody.

Meanings and actions: NVIDIA's Xid catalogue of 2025-10-29 and DCGM's health classes; whom it wakes is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Xid:
    """Codes with one meaning and one action."""

    codes: tuple[int, ...]
    meaning: str
    action: str
    severity: Literal["page", "ticket"]


RESET = "reset the GPU (drain its engine, stop it, `nvidia-smi --gpu-reset -i N`); again: NVIDIA's support"
TABLE = (
    Xid((13, 31, 32), "the application made an engine exception or a bad memory access",
        "restart the engine; repeated: `dcgmi diag -r 2`", "ticket"),
    Xid((43, 45), "a channel was reset, or cleaned up after another error",
        "nothing by itself; 45 alone: restart the Fabric Manager", "ticket"),
    Xid((46, 62, 109, 119, 120), "the GPU or its system processor (GSP) stopped answering", RESET, "page"),
    Xid((48,), "an uncorrectable memory error", "see which of 63, 64, 94, 95 came with it; " + RESET, "page"),
    Xid((54,), "auxiliary power is missing", "check the power cabling of the GPU", "page"),
    Xid((61, 121, 122, 123, 124, 125), "not documented for this GPU", "keep the log; NVIDIA's support", "ticket"),
    Xid((63,), "a row remap was recorded", "reset the GPU when that is convenient", "ticket"),
    Xid((64,), "a row remap could not be recorded", RESET, "page"),
    Xid((74,), "an NVLink error", "`nvidia-smi nvlink -e`, then NVIDIA's NVLink workflow; drain its engines", "page"),
    Xid((79,), "the GPU fell off the bus", "reboot the host; again: NVIDIA's support", "page"),
    Xid((92,), "a high rate of corrected memory errors", "nothing now; repeated: NVIDIA's support", "ticket"),
    Xid((94,), "a contained memory error: one application was hit", "restart the engine", "ticket"),
    Xid((95, 110, 136, 140, 143), "an uncontained memory error, or the GPU failed to initialise", RESET, "page"),
    Xid((154,), "the driver says which recovery it needs: none, reset, reboot or drain",
        "`dmesg | grep 'Xid.*154'` says which: do that", "ticket"),
)  # fmt: skip
