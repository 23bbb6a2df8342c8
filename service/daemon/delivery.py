"""One attempt to deliver an event to an endpoint: its address, its signature, its outcome.

Each attempt resolves the host name once, checks the addresses, and connects to a checked address. It follows no
redirects. Private, loopback and link-local addresses are refused unless the settings allow them.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import http.client
import ipaddress
import json
import socket
import ssl
import threading
import time
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from shadowswitch.model.errors import InvalidConfig, ShadowSwitchError
from shadowswitch.model.events import to_cloud_event
from shadowswitch.model.views import Event

RETRY_AFTER_MAX_S = 300.0
SOCKET_TIMEOUT_S = 10.0
ATTEMPT_TIMEOUT_S = 30.0
"""The limit of one attempt, also for an endpoint that answers byte by byte."""
PATH_SAFE = "/%:@!$&'()*+,;=-._~"
QUERY_SAFE = PATH_SAFE + "?"
"""The characters of RFC 3986 that a path and a query have as they are."""
CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The part of IPv6 that is given to the public. Outside of it lie site-local (fec0::/10), IPv4-compatible (::/96) and
NAT64 addresses (64:ff9b::/96), and what the `ipaddress` of an older Python does not know."""
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("2002::/16", "2001::/32", "3fff::/20", "192.88.99.0/24")))
"""Tunnels (6to4, Teredo), whose embedded IPv4 addresses could be private, and the newer network of documentation."""


class DeliveryFailed(ShadowSwitchError):
    """The attempt failed: the endpoint is not allowed, not reachable, or did not answer with 2xx."""

    gone = False
    retry_after_s = 0.0


class Endpoint(msgspec.Struct, frozen=True):
    """A receiver of events. `secret` is "whsec_" and base64, or any text; "" sends without a signature."""

    url: str
    name: str = ""
    secret: str = ""
    types: tuple[str, ...] = ()
    allow_private: bool = False

    def __repr__(self) -> str:
        return f"Endpoint({self.label})"

    @property
    def label(self) -> str:
        """The name for logs and statuses, without the query of the URL: a query may hold a secret."""
        parts = urlsplit(self.url)
        return self.name or f"{parts.scheme}://{parts.hostname}{parts.path}"

    @property
    def key(self) -> str:
        """The name of the durable position."""
        return f"webhook:{self.name or self.url}"

    def wants(self, kind: str) -> bool:
        """Does the endpoint receive events of this type?"""
        return not self.types or any(
            kind == wanted or (wanted.endswith("*") and kind.startswith(wanted[:-1])) for wanted in self.types
        )


def checked_url(url: str) -> SplitResult:
    """The parts of the URL of an endpoint. Raises InvalidConfig for a URL to which no request can be sent."""
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna").decode()
    except (ValueError, UnicodeError) as error:
        raise InvalidConfig(f"{url!r} is not a URL: {error}", hint="correct its host name or its port") from error
    if parts.scheme not in ("https", "http") or not host:
        raise InvalidConfig(f"{url!r} is not an http or https URL")
    if port == 0 or not url.isprintable() or " " in url:
        raise InvalidConfig(f"{url!r} has port 0, a space or a control character", hint="write a space as %20")
    return parts


def target_of(parts: SplitResult) -> str:
    """The target of a request: path and query, in ASCII. What is percent-encoded already stays as it is."""
    query = f"?{quote(parts.query, safe=QUERY_SAFE)}" if parts.query else ""
    return quote(parts.path or "/", safe=PATH_SAFE) + query


def signature(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of `webhook-signature`. Raises InvalidConfig for a "whsec_" secret with invalid base64."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError as error:
            raise InvalidConfig("a secret that begins with whsec_ must continue with base64") from error
    signed = hmac.new(key, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


def addresses_of(host: str, port: int, allow_private: bool) -> list[str]:
    """Resolve a host name. Raises DeliveryFailed for a name without addresses and for a private address."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryFailed(f"{host} cannot be resolved: {error}") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    for address in addresses:
        if not allow_private and not _is_public(address):
            raise DeliveryFailed(
                f"{host} has the address {address}, which is not public", hint="allow_private allows it"
            )
    return addresses


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return _is_public(str(ip.ipv4_mapped))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_PUBLIC)


class _Connection(http.client.HTTPConnection):
    """A connection to a checked address; TLS and the Host header use the name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext | None) -> None:
        super().__init__(host, port, timeout=SOCKET_TIMEOUT_S)
        self._address = address
        self._context = context

    def connect(self) -> None:
        """Raises OSError."""
        self.sock = socket.create_connection((self._address, self.port), SOCKET_TIMEOUT_S)
        if self._context is not None:
            self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self) -> None:
        """Close the connection. Any thread, at any time."""
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


def send(endpoint: Endpoint, event: Event, context: ssl.SSLContext | None = None) -> None:
    """Send one event. Raises DeliveryFailed unless the endpoint answers with 2xx. `context` is the TLS context."""
    parts = checked_url(endpoint.url)
    secure = parts.scheme == "https"
    if not secure and not endpoint.allow_private:
        raise DeliveryFailed("events are sent by https only", hint="allow_private allows http")
    host, port = (parts.hostname or "").encode("idna").decode(), parts.port or (443 if secure else 80)
    body = json.dumps(to_cloud_event(event), ensure_ascii=False, separators=(",", ":")).encode()
    timestamp = int(time.time())
    headers = {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "shadowswitch",
        "webhook-id": event.id,
        "webhook-timestamp": str(timestamp),
    }
    if endpoint.secret:
        headers["webhook-signature"] = signature(endpoint.secret, event.id, timestamp, body)
    target = target_of(parts)
    tls = (context or ssl.create_default_context()) if secure else None
    address = addresses_of(host, port, endpoint.allow_private)[0]
    connection = _Connection(host, port, address, tls)
    timer = threading.Timer(ATTEMPT_TIMEOUT_S, connection.cut)
    timer.daemon = True
    timer.start()
    try:
        connection.request("POST", target, body, headers)
        response = connection.getresponse()
        _judge(response.status, response.headers.get("Retry-After"))
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: of a header or an encoding
        raise DeliveryFailed(f"the event could not be sent to {host}: {error!r}") from error
    finally:
        timer.cancel()
        connection.close()


def _judge(status: int, retry_after: str | None) -> None:
    if 200 <= status < 300:
        return
    redirected = " (redirects are not followed)" if 300 <= status < 400 else ""
    refused = DeliveryFailed(f"the endpoint answered {status}{redirected}")
    refused.gone = status == 410
    if retry_after is not None and retry_after.strip().isdecimal():
        refused.retry_after_s = min(float(retry_after), RETRY_AFTER_MAX_S)
    raise refused
