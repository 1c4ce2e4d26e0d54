"""One small certificate authority, the certificates of every component, and their kubeconfig files."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.harness.layout import API_SERVICE_ADDRESS, API_URL, DNS_DOMAIN, HOST_ADDRESS, KUBECONFIG, NODE, PKI

_VALID: Final = timedelta(days=30)
_API_NAMES: Final = ("kubernetes", "kubernetes.default", f"kubernetes.default.svc.{DNS_DOMAIN}", "localhost")
_CLIENTS: Final = {
    # File name → (common name, group).
    "admin": ("darkroom-admin", "system:masters"),
    "kwok": ("kwok", "system:masters"),
    "apiserver-kubelet": ("kube-apiserver-kubelet-client", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
    "coredns": ("system:coredns", ""),
}


def write_all() -> None:
    """Write the authority, all certificates and keys, the ServiceAccount key pair and the kubeconfig files."""
    PKI.mkdir(parents=True, mode=0o700, exist_ok=True)
    authority = _Authority()
    authority.issue("apiserver", "kube-apiserver", "", _API_NAMES, ("127.0.0.1", HOST_ADDRESS, API_SERVICE_ADDRESS))
    authority.issue("node", f"system:node:{NODE}", "system:nodes", (NODE,), (HOST_ADDRESS,))
    for name, (common_name, group) in _CLIENTS.items():
        authority.issue(name, common_name, group)
    _write_service_account_keys()
    for name in ("node", *_CLIENTS):
        _write_kubeconfig(name, PKI / f"{name}.kubeconfig")
    _write_kubeconfig("admin", KUBECONFIG)


def certificate(name: str) -> Path:
    """The certificate file of a component; `ca` is the authority's."""
    return PKI / f"{name}.crt"


def key(name: str) -> Path:
    """The private key file of a component."""
    return PKI / f"{name}.key"


def kubeconfig(name: str) -> Path:
    """The kubeconfig file of a component."""
    return PKI / f"{name}.kubeconfig"


class _Authority:
    """A self-signed authority that signs with a P-256 key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "darkroom-cluster")])
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        _write(certificate("ca"), builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(
        self, file: str, common_name: str, group: str, names: Sequence[str] = (), addresses: Sequence[str] = ()
    ) -> None:
        """Write a certificate for clients, and for servers too when it has names or addresses."""
        private = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if group:
            parts.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
        builder = _builder(x509.Name(parts), self._name, private.public_key())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if names or addresses:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
            alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
            alternatives += [x509.IPAddress(ip_address(address)) for address in addresses]
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        _write(certificate(file), builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        _write(key(file), _private_bytes(private))


def _builder(subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _VALID)
    )


def _write_service_account_keys() -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(key("service-accounts"), _private_bytes(private))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    _write(PKI / "service-accounts.pub", public)


def _private_bytes(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def _write_kubeconfig(name: str, path: Path) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "darkroom", "cluster": {"server": API_URL, "certificate-authority": str(certificate("ca"))}}
        ],
        "users": [{"name": name, "user": {"client-certificate": str(certificate(name)), "client-key": str(key(name))}}],
        "contexts": [{"name": "darkroom", "context": {"cluster": "darkroom", "user": name}}],
        "current-context": "darkroom",
    }
    _write(path, json.dumps(config, indent=2).encode())
