"""Where this machine gets Debian packages from, read from its own apt configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from stack.errors import StackError

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_DEBIAN = re.compile(r"(bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable)\b")


@dataclass(frozen=True)
class AptSource:
    """One enabled binary source. signed_by: path of its keyring, None when apt's default keys apply."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str | None = None


@dataclass(frozen=True)
class DebianMirror:
    """URIs of the Debian archive and of its security updates (None when not configured), and the keyring."""

    archive: str
    security: str | None
    keyring: str


def parse_deb822(text: str) -> list[AptSource]:
    """Sources of one deb822 `.sources` file; disabled and deb-src-only stanzas are left out."""
    found: list[AptSource] = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and key:
                fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        if "deb" not in fields.get("types", "").split():
            continue
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off"):
            continue
        for uri in fields.get("uris", "").split():
            found.append(
                AptSource(
                    uri.rstrip("/"),
                    tuple(fields.get("suites", "").split()),
                    tuple(fields.get("components", "").split()),
                    _keyring(fields.get("signed-by", "")),
                )
            )
    return found


def parse_list(text: str) -> list[AptSource]:
    """Sources of one one-line-style `.list` file; comments and deb-src lines are left out."""
    found: list[AptSource] = []
    for raw in text.splitlines():
        match = re.fullmatch(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)",
            raw.split("#", 1)[0].strip(),
        )
        if not match:
            continue
        options = dict(re.findall(r"([\w-]+)=(\S+)", match["options"] or ""))
        found.append(
            AptSource(
                match["uri"].rstrip("/"),
                (match["suite"],),
                tuple(match["components"].split()),
                _keyring(options.get("signed-by", "")),
            )
        )
    return found


def debian_mirror(sources: Iterable[AptSource], read: Callable[[str], str] | None = None) -> DebianMirror:
    """The Debian archive among the sources, and its security archive.

    read: gives the text of a mirror list file, for `mirror+file:` URIs (Debian's cloud images).
    Raises StackError when no source is Debian's main archive.
    """
    archive: AptSource | None = None
    security: AptSource | None = None
    for source in sorted(sources, key=_third_party):  # stable: apt's order among Debian's own
        if "main" not in source.components:
            continue
        for suite in source.suites:
            if not _DEBIAN.match(suite):
                continue
            if re.search(r"[-/](security|updates/main)$", suite) or suite.endswith("/updates"):
                security = security or source
            elif "-" not in suite:
                archive = archive or source
    if archive is None:
        raise StackError(
            "images are built on Debian only, and this machine's apt has no source of Debian's main archive "
            "(/etc/apt/sources.list, /etc/apt/sources.list.d); use images from a registry: --source registry"
        )
    return DebianMirror(
        _resolve(archive.uri, read),
        _resolve(security.uri, read) if security else None,
        archive.signed_by or KEYRING,
    )


def read_sources(etc_apt: Path = Path("/etc/apt")) -> list[AptSource]:
    """All sources of a machine, in apt's order."""
    found: list[AptSource] = []
    main = etc_apt / "sources.list"
    for path in [main, *sorted((etc_apt / "sources.list.d").glob("*"))]:
        if path.suffix == ".list" and path.is_file():
            found += parse_list(path.read_text(errors="replace"))
        elif path.suffix == ".sources" and path.is_file():
            found += parse_deb822(path.read_text(errors="replace"))
    return found


def _third_party(source: AptSource) -> bool:
    """Other vendors name their suites after Debian's; Debian's archive and its mirrors are told by key or path."""
    own_key = source.signed_by is not None and Path(source.signed_by).name.startswith("debian-archive-")
    return not own_key and not re.search(r"/debian(-security)?$|^mirror\+", source.uri)


def _keyring(signed_by: str) -> str | None:
    """The path when Signed-By names a file, None for an inline key or a fingerprint."""
    first = signed_by.split("\n", 1)[0].split(",", 1)[0].strip()
    return first if first.startswith("/") else None


def _resolve(uri: str, read: Callable[[str], str] | None) -> str:
    """A plain URI: the first entry of the list that a `mirror+file:` URI points to."""
    match = re.fullmatch(r"mirror\+file:(?://)?(/\S+)", uri)
    if not match:
        return uri
    lines = (read or (lambda path: Path(path).read_text()))(match.group(1)).splitlines()
    entries = [line.split()[0].rstrip("/") for line in lines if line.strip() and not line.startswith("#")]
    if not entries:
        raise StackError(f"{match.group(1)}, which apt's sources point to, names no mirror")
    return entries[0]
