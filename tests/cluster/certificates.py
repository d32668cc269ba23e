"""Certificates for tests, made with openssl: an authority, and what it signs."""

from __future__ import annotations

import subprocess
from pathlib import Path


class Authority:
    """An authority with its files in a folder."""

    def __init__(self, folder: Path, name: str = "tests") -> None:
        self.folder, self._key, self.certificate = folder, folder / f"{name}.key", folder / f"{name}.pem"
        folder.mkdir(exist_ok=True)
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", self._key, "-out", self.certificate, "-subj", f"/CN={name}")

    def sign(self, name: str, address: str = "127.0.0.1") -> Path:
        """A PEM file with a key and a certificate for a name at an address, in the form that Java reads too."""
        key, request, signed, both = (self.folder / f"{name}{end}" for end in (".key", ".csr", ".crt", ".both.pem"))
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extensions = self.folder / f"{name}.extensions"
        extensions.write_text(f"subjectAltName=IP:{address}")
        authority = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        _openssl("x509", "-req", "-in", request, *authority, "-out", signed, "-days", "2", "-extfile", extensions)
        both.write_text(key.read_text() + signed.read_text())
        return both


_NEW_KEY = ("-newkey", "rsa:2048", "-nodes", "-days", "2")


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=60)
