"""A little external CA: CFSSL's ``sign`` over HTTPS on loopback, in a thread of its own.

It demands a client certificate of the swarm, as CFSSL behind mutual TLS does, signs node requests
with the names it is told, and vouches for CAs under the profile ``CA``. ``behave`` makes it fail.
"""

from __future__ import annotations

import http.server
import json
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from cryptography import x509 as lib
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from swarmctl.core.ca.x509 import (
    DAY_NS,
    Role,
    Signer,
    new_key_and_csr,
    sign_node_certificate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Answer = tuple[int, bytes]


class CfsslServer:
    """The CA of one root.

    Attributes:
        asked: the bodies of all requests, and who asked (the client certificate's CN).
        behave: instead of signing, answer so; None signs.
        url: where it signs.
    """

    def __init__(self, folder: Path, cert_pem: str, key_pem: str, *clients_pem: str) -> None:
        self._cert_pem, self._key_pem = cert_pem.encode(), key_pem.encode()
        self._clients_pem = "".join((cert_pem, *clients_pem))
        self._folder = folder
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.behave: Callable[[dict[str, Any]], Answer] | None = None
        self.url = ""

    @contextmanager
    def serving(self, port: int = 0) -> Iterator[CfsslServer]:
        """Serve for the length of the block."""
        server = _Server(("127.0.0.1", port), _handler(self))
        server.socket = self._context().wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://localhost:{server.server_address[1]}/api/v1/cfssl/sign"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="external CA")
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _context(self) -> ssl.SSLContext:
        key_pem, csr_pem = new_key_and_csr()
        chain = sign_node_certificate(
            Signer.from_pem(self._cert_pem, self._key_pem),
            csr_pem,
            node_id="localhost",
            role=Role.WORKER,
            cluster_id="none",
            expiry_ns=30 * DAY_NS,
            now_ns=time.time_ns(),
        )
        file = self._folder / "external-ca.pem"
        file.write_bytes(chain + key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=self._clients_pem)
        return context

    def answer(self, client: str, body: dict[str, Any]) -> Answer:
        self.asked.append((client, body))
        if self.behave is not None:
            return self.behave(body)
        return signed(self.sign(body))

    def sign(self, body: dict[str, Any]) -> str:
        """Sign as CFSSL does: the key of the request, and the words that stand beside it."""
        csr = lib.load_pem_x509_csr(body["certificate_request"].encode())
        root = lib.load_pem_x509_certificate(self._cert_pem)
        attributes = [
            lib.NameAttribute(oid, text, lib.name._ASN1Type.PrintableString)
            for oid, text in _subject(body["subject"])
        ]
        key_id = root.extensions.get_extension_for_class(lib.SubjectKeyIdentifier).value
        builder = (
            lib.CertificateBuilder()
            .subject_name(lib.Name(attributes))
            .issuer_name(root.subject)
            .public_key(csr.public_key())
            .serial_number(lib.random_serial_number())
            .not_valid_before(root.not_valid_before_utc)
            .not_valid_after(root.not_valid_before_utc + timedelta(days=30))
            .add_extension(lib.SubjectKeyIdentifier.from_public_key(csr.public_key()), False)
            .add_extension(
                lib.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), False
            )
        )
        is_ca = body.get("profile") == "CA"
        if is_ca:
            (extension,) = body["extensions"]
            assert (extension["id"], extension["value"]) == ("2.5.29.19", "30030101ff")
        else:
            names = [lib.DNSName(name) for name in body["hosts"]]
            builder = builder.add_extension(lib.SubjectAlternativeName(names), False)
        builder = builder.add_extension(lib.BasicConstraints(is_ca, None), True)
        key = load_pem_private_key(self._key_pem, None)
        return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def signed(certificate_pem: str) -> Answer:
    """Return CFSSL's answer with a certificate."""
    answer = {"success": True, "result": {"certificate": certificate_pem}, "errors": []}
    return 200, json.dumps(answer).encode()


def refused(*reasons: str) -> Answer:
    """Return CFSSL's refusal."""
    errors = [{"code": 1, "message": reason} for reason in reasons]
    return 200, json.dumps({"success": False, "result": None, "errors": errors}).encode()


def _subject(subject: dict[str, Any]) -> list[tuple[lib.ObjectIdentifier, str]]:
    oids = {"O": lib.NameOID.ORGANIZATION_NAME, "OU": lib.NameOID.ORGANIZATIONAL_UNIT_NAME}
    found = [(oids[key], text) for name in subject["names"] for key, text in name.items()]
    return [*found, (lib.NameOID.COMMON_NAME, subject["CN"])]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up in the middle is none of the test's business."""


def _handler(ca: CfsslServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = 10

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            certificate = self.connection.getpeercert()  # type: ignore[attr-defined]
            client = dict(pair for (pair,) in certificate["subject"])["commonName"]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, answer = ca.answer(client, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return Handler
