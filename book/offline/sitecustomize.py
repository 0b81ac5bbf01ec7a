"""With this folder on PYTHONPATH, Python reaches nothing but this machine.

The tests run every notebook so: a chapter that needs the network fails here
and not first on a reader's train.
"""

import sys

WATCHED = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
}


def refuse(event: str, arguments: tuple) -> None:
    """An audit hook that lets only loopback and local sockets through."""
    if event not in WATCHED:
        return
    host = arguments[WATCHED[event]]
    if isinstance(host, tuple):  # an address of the internet families
        host = host[0]
    elif event.startswith(("socket.connect", "socket.send")):
        return  # a path in the file system, or an address given before
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost", "::1") or host.startswith("127."):
        return
    raise PermissionError(f"offline: {event} to {host} is refused")


sys.addaudithook(refuse)
