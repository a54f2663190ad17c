"""TLS for OTLP over HTTP: trusted certificates, and the client's own."""

from __future__ import annotations

import ssl

from plait_server.adapters.otlp.settings import InvalidSetting, OtlpSettings


def tls_context(settings: OtlpSettings) -> ssl.SSLContext:
    """Return the TLS context for connections to a collector.

    Raises:
        InvalidSetting: a certificate or key file cannot be used.
    """
    path = settings.certificate_file
    try:
        context = ssl.create_default_context(cafile=path)
        if settings.client_certificate_file is not None:
            path = settings.client_certificate_file
            context.load_cert_chain(path, settings.client_key_file)
    except OSError as error:  # ssl.SSLError is one.
        raise InvalidSetting(f"cannot use the certificate or key of {path}: {error}") from error
    return context
