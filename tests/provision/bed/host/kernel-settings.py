#!/usr/bin/python3
"""Shows settings of /sys as the kernel does: the chosen word in brackets among all that there are."""

import time
from pathlib import Path

WORDS = {
    "/sys/kernel/mm/transparent_hugepage/enabled": ["always", "madvise", "never"],
    "/sys/kernel/mm/transparent_hugepage/defrag": ["always", "defer", "defer+madvise", "madvise", "never"],
}


def line(text: str, words: list[str]) -> str:
    """What the kernel would show. text: what is in the file. systemd-tmpfiles writes a word over the start of what was
    there and cuts nothing off, as a kernel's file has no length."""
    lines = {word: " ".join(f"[{each}]" if each == word else each for each in words) + "\n" for word in words}
    written = [word for word in words if text.startswith(word)]
    return text if text in lines.values() or not written else lines[max(written, key=len)]


while True:
    for name, words in WORDS.items():
        path = Path(name)
        if path.is_file() and (text := path.read_text()) and (shown := line(text, words)) != text:
            path.write_text(shown)
    time.sleep(0.1)
