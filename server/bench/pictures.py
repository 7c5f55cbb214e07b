"""Pictures that are made up from a seed: no two alike, and as large as a photo's file."""

from __future__ import annotations

import base64
import io
import random

from PIL import Image

SIZE = 448
CELLS = 14


def picture_url(rng: random.Random) -> str:
    """A JPEG as a `data:` URL: coloured cells, blurred by scaling, which compress like a photo."""
    cells = Image.frombytes("RGB", (CELLS, CELLS), rng.randbytes(3 * CELLS * CELLS))
    file = io.BytesIO()
    cells.resize((SIZE, SIZE), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
