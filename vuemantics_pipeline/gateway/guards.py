"""What keeps strangers out: origins of browsers, and limits on how often something may be done."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

Clock = Callable[[], float]

_DEFAULT_PORTS = {"http": 80, "https": 443}
_FAILURES = 20
_FAILURES_PER_SECOND = 0.2
_ADDRESSES = 10_000
_IPV6_PREFIX = 64


def origin_allowed(connection: HTTPConnection, origins: Sequence[str]) -> bool:
    """Whether a page of the origin that a request names may use the gateway.

    Browsers name the origin, and scripts cannot change it; without one there is no browser, and so
    nobody whose cookie could be abused. Pages of the gateway's own host are always welcome.

    Args:
        origins: others that are, such as https://photos.example.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        return True
    named = _host_and_port(origin)
    if named is None:
        return False
    scheme = origin.partition("://")[0].lower()
    own = _host_and_port(f"{scheme}://{connection.headers.get('host', '')}")
    listed = {(item.partition("://")[0].lower(), _host_and_port(item)) for item in origins}
    return named == own or (scheme, named) in listed


def _host_and_port(origin: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname or port is None:
        return None
    return parts.hostname, port


class Bucket:
    """A token bucket: so much may be done at once, and it fills up again with time."""

    __slots__ = ("_at", "_capacity", "_clock", "_left", "_per_second")

    def __init__(self, capacity: float, per_second: float, clock: Clock = time.monotonic) -> None:
        self._capacity = self._left = capacity
        self._per_second = per_second
        self._clock = clock
        self._at = clock()

    @property
    def is_empty(self) -> bool:
        self._fill()
        return self._left < 1

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._capacity, self._left + (now - self._at) * self._per_second)
        self._at = now

    def take(self) -> float:
        """Take a token, one of those to come if there is none.

        Returns:
            How many seconds to wait, so as to do nothing before its token is there.
        """
        self._fill()
        self._left -= 1
        return max(0.0, -self._left / self._per_second)


class FailureLimit:
    """Who has failed to sign in so often that they have to wait.

    Only failures count, so nobody is kept waiting who knows how to sign in. It remembers a bounded
    number of addresses, those that failed last. Any thread may use it.
    """

    def __init__(
        self,
        failures: int = _FAILURES,
        per_second: float = _FAILURES_PER_SECOND,
        *,
        addresses: int = _ADDRESSES,
        clock: Clock = time.monotonic,
    ) -> None:
        self._failures = failures
        self._per_second = per_second
        self._addresses = addresses
        self._clock = clock
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._lock = Lock()

    def is_exhausted(self, connection: HTTPConnection) -> bool:
        """Whether the client has to wait before it may try again."""
        with self._lock:
            bucket = self._buckets.get(_address(connection))
            return bucket is not None and bucket.is_empty

    def record(self, connection: HTTPConnection) -> None:
        """Count a failure of the client."""
        address = _address(connection)
        with self._lock:
            bucket = self._buckets.get(address)
            if bucket is None:
                bucket = Bucket(self._failures, self._per_second, self._clock)
                self._buckets[address] = bucket
            if not bucket.is_empty:
                bucket.take()
            self._buckets.move_to_end(address)
            if len(self._buckets) > self._addresses:
                self._buckets.popitem(last=False)


def _address(connection: HTTPConnection) -> str:
    """Whose failures count together: an address, or the network that one site has of IPv6."""
    host = connection.client.host if connection.client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
    return host
