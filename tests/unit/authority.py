"""Certificates as somebody else would have made them."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

# Where write_own puts them, as gateway.tls of a stack file.
OWN = {"certificate": "own/chain.pem", "key": "own/key.pem"}


def write_own(
    root: Path, *, days: float = 90, since: float = -1, name: str = "localhost", issuer: str | None = None
) -> None:
    """A certificate for this server and its key. issuer: the private authority that signed it, else it did itself."""
    key, authority = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    now = datetime.now(UTC)
    alternatives = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer or name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=since))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(list(dict.fromkeys(alternatives))), critical=False)
        .sign(authority if issuer else key, hashes.SHA256())
    )
    (root / "own").mkdir(exist_ok=True)
    (root / OWN["certificate"]).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (root / OWN["key"]).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
