"""The gateway's certificate and private key, as pairs of files that never change.

A pair is `tls/<name>.crt` and `tls/<name>.key`; the name is the start of the certificate's SHA-256. The rendered
nginx configuration names the pair it uses, so a new certificate is validated, applied and put back like any other
change, and a crash in the middle leaves a whole pair in use.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack.config.gateway import Gateway
from stack.errors import InputError, Problem
from stack.private_file import write_private

VALID_DAYS, RENEW_DAYS = 397, 30


def certificate_file(state: Path, name: str) -> Path:
    """The certificate of a pair."""
    return state / "tls" / f"{name}.crt"


def private_key_file(state: Path, name: str) -> Path:
    """The private key of a pair."""
    return state / "tls" / f"{name}.key"


def client_trust_file(state: Path) -> Path:
    """What clients on this host trust: the certificate that the gateway shows, under a name that stays."""
    return state / "gateway.crt"


def check_own(gateway: Gateway, root: Path, shown: str) -> None:
    """The user's own certificate and key: readable, belonging together, not expired. Raises InputError."""
    if gateway.tls is None:
        return
    certificate, key = root / gateway.tls.certificate, root / gateway.tls.key
    problems = [
        Problem(f"gateway.tls.{name}", f"{path} is not a readable file")
        for name, path in (("certificate", certificate), ("key", key))
        if not (path.is_file() and os.access(path, os.R_OK))
    ]
    if not problems:
        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(certificate, key, password="")
        except ssl.SSLError as error:
            what = f"certificate and key do not work together: {error.reason or error}"
            problems.append(Problem("gateway.tls", what))
        else:
            ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
            if ends < datetime.datetime.now(datetime.UTC):
                problems.append(Problem("gateway.tls.certificate", f"expired on {ends:%Y-%m-%d}"))
    if problems:
        raise InputError(shown, problems)


def current(state: Path, gateway: Gateway, root: Path) -> str | None:
    """Name of the pair that belongs to this configuration; None when it is still to be made.

    A self-signed one is to be made again when it ends within RENEW_DAYS or names another server.
    """
    if gateway.tls is not None:
        path = root / gateway.tls.certificate
        name = _name_of(path.read_bytes()) if path.is_file() else None
        return name if name and private_key_file(state, name).exists() else None
    good = {}
    for path in sorted((state / "tls").glob("*.crt")):
        ends = _ends_if_good(path.read_bytes(), _names(gateway))
        if ends and path.with_suffix(".key").exists():
            good[ends] = path.stem
    return good[max(good)] if good else None


def ensure(state: Path, gateway: Gateway, root: Path) -> tuple[str, bool]:
    """(name of the pair, whether it was made now)."""
    name = current(state, gateway, root)
    if name is not None:
        return name, False
    if gateway.tls is not None:
        certificate, key = ((root / path).read_bytes() for path in (gateway.tls.certificate, gateway.tls.key))
    else:
        certificate, key = _self_signed(_names(gateway))
    name = _name_of(certificate)
    private_key_file(state, name).parent.mkdir(parents=True, exist_ok=True)
    write_private(private_key_file(state, name), key)
    write_private(certificate_file(state, name), certificate)
    certificate_file(state, name).chmod(0o644)
    return name, True


def keep_only(state: Path, name: str) -> None:
    """Drop every other pair, and show clients the one in use."""
    for path in (state / "tls").iterdir():
        if path.stem != name:
            path.unlink()
    wanted = certificate_file(state, name).read_bytes()
    trust = client_trust_file(state)
    if not trust.exists() or trust.read_bytes() != wanted:
        write_private(trust, wanted)
        trust.chmod(0o644)


def _name_of(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()[:16]


def _names(gateway: Gateway) -> list[str]:
    listen = [] if gateway.listen == "0.0.0.0" else [gateway.listen]
    return list(dict.fromkeys([gateway.server_name, *listen, "localhost", "127.0.0.1"]))


def _ends_if_good(pem: bytes, wanted: Sequence[str]) -> datetime.datetime | None:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound):
        return None
    ours = certificate.issuer == certificate.subject
    ends = certificate.not_valid_after_utc
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=RENEW_DAYS)
    return ends if ours and ends > soon and all(_general_name(name) in names for name in wanted) else None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _self_signed(names: Sequence[str]) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        # clients are told to trust this very file: it has to be allowed to vouch for itself
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
