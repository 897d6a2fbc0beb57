"""Certificates for tests, made when they are needed: an authority, and what it issues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

DAY = timedelta(days=1)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def name_of(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


class Authority:
    """An authority of its own, whose certificate lies in the folder as NAME.pem."""

    def __init__(
        self, folder: Path, name: str = "ca", issuer: Authority | None = None, *, ends: timedelta = DAY
    ) -> None:
        """Make it: by itself, or issued by another."""
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = issuer or self
        self.certificate = self._sign(
            name, self.key, self.issuer, [], begins=-2 * DAY, ends=ends, is_authority=True
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        name: str,
        hosts: tuple[str, ...] = ("127.0.0.1", "localhost"),
        *,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
    ) -> tuple[str, str]:
        """Write a certificate, and those above it that are no roots, and its key; return the files' names."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, self, hosts, begins=begins, ends=ends)
        cert_file, key_file = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        between = b"" if self.issuer is self else self.pem
        cert_file.write_bytes(certificate.public_bytes(Encoding.PEM) + between)
        key_file.write_bytes(pem_of(key))
        return str(cert_file), str(key_file)

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: Authority,
        hosts: tuple[str, ...] | list[str],
        *,
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        is_authority: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(name))
            .issuer_name(name_of(issuer.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + ends)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            names = x509.SubjectAlternativeName([alternative(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(issuer.key, hashes.SHA256())
