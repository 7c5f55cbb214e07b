"""Before anything imports Triton: tests interpret its kernels, on any machine.

`TRITON_INTERPRET=0` leaves them to the GPU, for end-to-end tests of a daemon with `--device cuda`.
"""

from __future__ import annotations

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
