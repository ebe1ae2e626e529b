"""Certificates: pairs that never change, renewed in time, and one's own refused when it cannot work."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from stack.certificates import (
    RENEW_DAYS,
    certificate_file,
    check_own,
    client_trust_file,
    current,
    ensure,
    keep_only,
    private_key_file,
)
from stack.config.gateway import Gateway
from stack.errors import InputError
from unit import given
from unit.authority import OWN, write_own


def gateway(**keys: Any) -> Gateway:
    return given.config(gateway=keys).gateway


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def read(state: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate_file(state, name).read_bytes())


def names_in(certificate: x509.Certificate) -> set[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({}, {"localhost", "127.0.0.1"}),
        ({"server_name": "llm.example.org"}, {"llm.example.org", "localhost", "127.0.0.1"}),
        ({"server_name": "192.0.2.7"}, {"192.0.2.7", "localhost", "127.0.0.1"}),
        ({"listen": "10.0.0.5"}, {"10.0.0.5", "localhost", "127.0.0.1"}),
    ],
)
def test_a_certificate_names_the_server_and_this_host(tmp_path: Path, keys: dict[str, str], named: set[str]) -> None:
    name, made = ensure(tmp_path, gateway(**keys), tmp_path)
    assert made
    assert names_in(read(tmp_path, name)) == named


def test_it_is_self_signed_by_the_key_beside_it_which_is_private(tmp_path: Path) -> None:
    name, _ = ensure(tmp_path, gateway(), tmp_path)
    certificate = read(tmp_path, name)
    key = serialization.load_pem_private_key(private_key_file(tmp_path, name).read_bytes(), None)
    assert certificate.public_key() == key.public_key()
    certificate.verify_directly_issued_by(certificate)
    assert mode(private_key_file(tmp_path, name)) == 0o400
    assert mode(certificate_file(tmp_path, name)) == 0o644


def test_it_is_valid_now_and_for_no_longer_than_clients_accept(tmp_path: Path) -> None:
    name, _ = ensure(tmp_path, gateway(), tmp_path)
    certificate, now = read(tmp_path, name), datetime.now(UTC)
    assert certificate.not_valid_before_utc < now < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc <= timedelta(days=398)


def test_a_good_pair_is_kept(tmp_path: Path) -> None:
    assert current(tmp_path, gateway(), tmp_path) is None
    name, _ = ensure(tmp_path, gateway(), tmp_path)
    before = read(tmp_path, name)
    assert ensure(tmp_path, gateway(), tmp_path) == (name, False)
    assert current(tmp_path, gateway(), tmp_path) == name
    assert read(tmp_path, name) == before


@pytest.mark.parametrize(("days", "renewed"), [(RENEW_DAYS - 1, True), (RENEW_DAYS + 1, False), (-0.5, True)])
def test_it_is_renewed_near_its_end(tmp_path: Path, days: float, renewed: bool) -> None:
    write_own(tmp_path, days=days)
    old, _ = ensure(tmp_path, gateway(tls=OWN), tmp_path)
    new, made = ensure(tmp_path, gateway(), tmp_path)
    assert made is renewed
    assert (new != old) is renewed


@pytest.mark.parametrize("keys", [{"server_name": "llm.example.org"}, {"listen": "10.0.0.5"}])
def test_another_name_is_another_pair_and_the_old_one_stays_until_it_is_dropped(
    tmp_path: Path, keys: dict[str, str]
) -> None:
    old, _ = ensure(tmp_path, gateway(), tmp_path)
    before = certificate_file(tmp_path, old).read_bytes(), private_key_file(tmp_path, old).read_bytes()
    new, made = ensure(tmp_path, gateway(**keys), tmp_path)
    assert made
    assert new != old
    assert (certificate_file(tmp_path, old).read_bytes(), private_key_file(tmp_path, old).read_bytes()) == before
    keep_only(tmp_path, new)
    assert {path.stem for path in (tmp_path / "tls").iterdir()} == {new}


def test_clients_find_the_certificate_in_use_under_a_name_that_stays(tmp_path: Path) -> None:
    for keys in ({}, {"server_name": "llm.example.org"}):
        name, _ = ensure(tmp_path, gateway(**keys), tmp_path)
        keep_only(tmp_path, name)
        assert client_trust_file(tmp_path).read_bytes() == certificate_file(tmp_path, name).read_bytes()
        assert mode(client_trust_file(tmp_path)) == 0o644


@pytest.mark.parametrize("half", [certificate_file, private_key_file])
def test_half_a_pair_is_no_pair(tmp_path: Path, half: Any) -> None:
    name, _ = ensure(tmp_path, gateway(), tmp_path)
    half(tmp_path, name).unlink()
    assert current(tmp_path, gateway(), tmp_path) is None
    assert ensure(tmp_path, gateway(), tmp_path)[1]


def test_an_unreadable_certificate_is_no_certificate(tmp_path: Path) -> None:
    name, _ = ensure(tmp_path, gateway(), tmp_path)
    certificate_file(tmp_path, name).unlink()
    certificate_file(tmp_path, name).write_text("not PEM")
    new, made = ensure(tmp_path, gateway(), tmp_path)
    assert made
    assert names_in(read(tmp_path, new)) == {"localhost", "127.0.0.1"}


def test_a_certificate_of_an_authority_is_not_taken_for_a_self_signed_one(tmp_path: Path) -> None:
    write_own(tmp_path, issuer="A private authority")
    own, _ = ensure(tmp_path, gateway(tls=OWN), tmp_path)
    assert ensure(tmp_path, gateway(), tmp_path)[0] != own


def test_of_two_good_pairs_the_one_that_lasts_longer_is_used(tmp_path: Path) -> None:
    pairs = {}
    for days in (90, 200, 150):
        write_own(tmp_path, days=days)
        pairs[days], _ = ensure(tmp_path, gateway(tls=OWN), tmp_path)
    assert current(tmp_path, gateway(), tmp_path) == pairs[200]


# One's own certificate


@pytest.fixture
def own(tmp_path: Path) -> Path:
    write_own(tmp_path)
    return tmp_path


def refused(root: Path) -> InputError:
    with pytest.raises(InputError) as error:
        check_own(gateway(tls=OWN), root, "stack.yaml")
    assert "PRIVATE KEY" not in str(error.value)
    return error.value


@pytest.mark.parametrize("issuer", [None, "A private authority"])
def test_ones_own_certificate_is_used_as_it_is(tmp_path: Path, issuer: str | None) -> None:
    write_own(tmp_path, issuer=issuer)
    check_own(gateway(tls=OWN), tmp_path, "stack.yaml")
    state = tmp_path / "state"
    name, made = ensure(state, gateway(tls=OWN), tmp_path)
    assert made
    assert certificate_file(state, name).read_bytes() == (tmp_path / OWN["certificate"]).read_bytes()
    assert private_key_file(state, name).read_bytes() == (tmp_path / OWN["key"]).read_bytes()
    assert mode(private_key_file(state, name)) == 0o400
    assert ensure(state, gateway(tls=OWN), tmp_path) == (name, False)


def test_ones_own_renewed_certificate_is_another_pair(own: Path) -> None:
    old, _ = ensure(own / "state", gateway(tls=OWN), own)
    write_own(own)
    assert current(own / "state", gateway(tls=OWN), own) is None
    new, made = ensure(own / "state", gateway(tls=OWN), own)
    assert made
    assert new != old
    assert private_key_file(own / "state", new).read_bytes() == (own / OWN["key"]).read_bytes()


def test_without_ones_own_there_is_nothing_to_check(tmp_path: Path) -> None:
    check_own(gateway(), tmp_path, "stack.yaml")


def test_an_expired_certificate_is_refused_with_the_day(tmp_path: Path) -> None:
    write_own(tmp_path, since=-9, days=-2)
    error = refused(tmp_path)
    assert given.wheres(error) == ["gateway.tls.certificate"]
    assert f"expired on {datetime.now(UTC) - timedelta(days=2):%Y-%m-%d}" in str(error)


def test_the_key_of_another_certificate_is_refused(own: Path) -> None:
    certificate = (own / OWN["certificate"]).read_bytes()
    write_own(own)
    (own / OWN["certificate"]).write_bytes(certificate)
    error = refused(own)
    assert given.wheres(error) == ["gateway.tls"]
    assert "do not work together" in str(error)


@pytest.mark.parametrize("which", ["certificate", "key"])
@pytest.mark.parametrize("content", [b"", b"not PEM", b"\xff\xfe\x00"])
def test_a_file_that_is_not_pem_is_refused(own: Path, which: str, content: bytes) -> None:
    (own / OWN[which]).write_bytes(content)
    assert given.wheres(refused(own)) == ["gateway.tls"]


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(own: Path) -> None:
    key = serialization.load_pem_private_key((own / OWN["key"]).read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (own / OWN["key"]).write_bytes(pem)
    assert given.wheres(refused(own)) == ["gateway.tls"]


def test_both_missing_files_are_named_at_once(tmp_path: Path) -> None:
    error = refused(tmp_path)
    assert given.wheres(error) == ["gateway.tls.certificate", "gateway.tls.key"]
    assert all(str(tmp_path / path) in str(error) for path in OWN.values())
