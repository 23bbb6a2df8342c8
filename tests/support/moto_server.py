"""An S3 server in a process of its own: moto, one request at a time. Run as a script, with the number of a socket."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator

BUCKET = "backups"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "secret-of-the-test", "AWS_REGION": "us-east-1"}
SIGNED = "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
START_S = 60


@contextlib.contextmanager
def moto() -> Iterator[dict[str, str]]:
    """Start the server with an empty bucket; the variables of the environment with which it is reached."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        os.set_inheritable(listening.fileno(), True)
        url = "http://{}:{}".format(*listening.getsockname())
        process = subprocess.Popen(
            [sys.executable, __file__, str(listening.fileno())],
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:  # a request that comes before the server waits in the socket
            made = urllib.request.Request(f"{url}/{BUCKET}", method="PUT", headers={"Authorization": SIGNED})
            urllib.request.urlopen(made, timeout=START_S).close()
            yield {**CREDENTIALS, "AWS_ENDPOINT_URL": url}
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """The script."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    application = DomainDispatcherApplication(create_backend_app)
    make_server("127.0.0.1", 0, application, threaded=False, fd=int(sys.argv[1])).serve_forever()


if __name__ == "__main__":
    main()
