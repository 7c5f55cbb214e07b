"""Ends with 0 when the daemon of this container would work on a request now.

For Docker and Compose; Kubernetes asks /readyz itself. Reads the port where the daemon does.
"""

import os
import urllib.request

port = os.environ.get("INTERNVL_SERVE_PORT", "8000")
with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=4):
    pass
