"""Where a machine gets Debian packages from: both file formats, and the mirrors of cloud images."""

from __future__ import annotations

from pathlib import Path

import pytest

from stack.apt_sources import KEYRING, AptSource, DebianMirror, debian_mirror, parse_deb822, parse_list, read_sources
from stack.errors import StackError

# As Debian 12's and 13's installers write it, with a disabled stanza and one of sources only.
DEB822 = """\
# Debian
Types: deb deb-src
URIs: https://deb.example.org/debian/
Suites: trixie trixie-updates
Components: main contrib
# a comment inside
Signed-By: /usr/share/keyrings/debian.gpg

Types: deb
URIs: https://deb.example.org/debian-security
Suites: trixie-security
Components: main

Types: deb
Enabled: no
URIs: https://off.example.org/debian
Suites: trixie
Components: main

Types: deb-src
URIs: https://src.example.org/debian
Suites: trixie
Components: main
"""
LIST = """\
# deb https://off.example.org/debian bookworm main
deb http://deb.example.org/debian/ bookworm main contrib # trailing
deb [arch=amd64 signed-by=/etc/apt/keyrings/x.gpg] http://x.example.org/apt stable main
deb-src http://deb.example.org/debian bookworm main
deb cdrom:[Debian GNU/Linux 12.1.0 _Bookworm_ - Official amd64]/ bookworm main
not a source
"""
ARCHIVE = AptSource("https://a.example.org/debian", ("trixie", "trixie-updates"), ("main",), "/k.gpg")
SECURITY = AptSource("https://s.example.org/debian-security", ("trixie-security",), ("main",))


def test_a_deb822_file_gives_its_enabled_binary_sources() -> None:
    assert parse_deb822(DEB822) == [
        AptSource(
            "https://deb.example.org/debian",
            ("trixie", "trixie-updates"),
            ("main", "contrib"),
            "/usr/share/keyrings/debian.gpg",
        ),
        AptSource("https://deb.example.org/debian-security", ("trixie-security",), ("main",)),
    ]


@pytest.mark.parametrize("word", ["no", "No", "false", "0", "off"])
def test_a_stanza_is_disabled_by_any_of_apts_words(word: str) -> None:
    stanza = f"Types: deb\nEnabled: {word}\nURIs: http://x\nSuites: sid\nComponents: main\n"
    assert parse_deb822(stanza) == []
    assert len(parse_deb822(stanza.replace(word, "yes"))) == 1


def test_a_stanza_of_two_addresses_is_two_sources() -> None:
    stanza = "Types: deb\nURIs: http://a http://b/\nSuites: sid\nComponents: main\n"
    assert [source.uri for source in parse_deb822(stanza)] == ["http://a", "http://b"]


def test_a_key_that_stands_in_the_file_is_no_path() -> None:
    inline = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ==\n -----END PGP PUBLIC KEY BLOCK-----\n"
    (source,) = parse_deb822("types: deb\nuris: http://a\nsuites: sid\ncomponents: main\n" + inline)
    assert source.signed_by is None


def test_a_list_file_gives_its_binary_lines() -> None:
    debian, other, *cdrom = parse_list(LIST)
    assert debian == AptSource("http://deb.example.org/debian", ("bookworm",), ("main", "contrib"))
    assert other == AptSource("http://x.example.org/apt", ("stable",), ("main",), "/etc/apt/keyrings/x.gpg")
    assert all(source.suites != ("bookworm",) for source in cdrom)


def test_the_archive_and_its_security_updates_are_told_apart() -> None:
    assert debian_mirror([SECURITY, ARCHIVE]) == DebianMirror(ARCHIVE.uri, SECURITY.uri, "/k.gpg")


@pytest.mark.parametrize("own", [ARCHIVE, AptSource("http://m/debian", ("bookworm",), ("main",))])
def test_another_vendor_who_uses_debians_suite_names_is_not_debian(own: AptSource) -> None:
    vendor = AptSource("https://packages.vendor.example/apt", ("bookworm",), ("main",), "/etc/apt/keyrings/vendor.gpg")
    assert debian_mirror([vendor, own]).archive == own.uri


@pytest.mark.parametrize("suite", ["bookworm-security", "bookworm/updates", "stable-security", "sid/updates"])
def test_every_spelling_of_security_is_known(suite: str) -> None:
    security = AptSource("http://s", (suite,), ("main",))
    assert debian_mirror([security, ARCHIVE]).security == "http://s"


def test_without_security_updates_and_key_debians_own_key_applies() -> None:
    only = AptSource("http://a", ("sid",), ("main",))
    assert debian_mirror([only]) == DebianMirror("http://a", None, KEYRING)


@pytest.mark.parametrize(
    "sources",
    [
        [],
        [SECURITY],
        [AptSource("http://archive.ubuntu.com/ubuntu", ("noble",), ("main",))],
        [AptSource("http://a", ("bookworm",), ("contrib",))],
        [AptSource("http://a", ("bookworm-backports",), ("main",))],
    ],
)
def test_a_machine_without_debians_archive_is_told_what_to_do(sources: list[AptSource]) -> None:
    with pytest.raises(StackError, match="--source registry"):
        debian_mirror(sources)


@pytest.mark.parametrize("uri", ["mirror+file:/etc/apt/mirrors/d.list", "mirror+file:///etc/apt/mirrors/d.list"])
def test_a_mirror_list_is_followed_to_its_first_entry(uri: str) -> None:
    asked = []

    def read(path: str) -> str:
        asked.append(path)
        return "# mirrors\n\nhttps://first.example.org/debian/ priority:1\nhttps://second.example.org/debian\n"

    assert debian_mirror([AptSource(uri, ("trixie",), ("main",))], read).archive == "https://first.example.org/debian"
    assert asked == ["/etc/apt/mirrors/d.list"]


def test_an_empty_mirror_list_is_named() -> None:
    with pytest.raises(StackError, match=r"/etc/apt/mirrors/d\.list"):
        debian_mirror([AptSource("mirror+file:/etc/apt/mirrors/d.list", ("trixie",), ("main",))], lambda _: "# none\n")


def test_a_machines_files_are_read_in_apts_order(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (tmp_path / "sources.list").write_text("deb http://1 sid main\n")
    (folder / "b.sources").write_text("Types: deb\nURIs: http://3\nSuites: sid\nComponents: main\n")
    (folder / "a.list").write_text("deb http://2 sid main\n")
    (folder / "c.list.save").write_text("deb http://4 sid main\n")
    (folder / "d.sources").write_bytes(b"Types: deb\nURIs: http://5\nSuites: sid\nX: \xff\n")
    assert [source.uri for source in read_sources(tmp_path)] == ["http://1", "http://2", "http://3", "http://5"]


def test_a_machine_without_any_file_has_no_source(tmp_path: Path) -> None:
    assert read_sources(tmp_path) == []
