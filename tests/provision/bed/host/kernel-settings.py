#!/usr/bin/python3
"""Shows settings of /sys as the kernel does: the chosen word in brackets among all that there are."""

import time
from pathlib import Path

WORDS = {
    "/sys/kernel/mm/transparent_hugepage/enabled": ["always", "madvise", "never"],
    "/sys/kernel/mm/transparent_hugepage/defrag": ["always", "defer", "defer+madvise", "madvise", "never"],
}
while True:
    for name, words in WORDS.items():
        path = Path(name)
        if path.is_file() and (chosen := path.read_text().strip()) in words:
            path.write_text(" ".join(f"[{word}]" if word == chosen else word for word in words) + "\n")
    time.sleep(0.1)
