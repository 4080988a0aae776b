"""The data that travels inside a page, decoded."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any


def extract_data(data: str) -> dict[str, Any]:
    """Decode the data that `embed_data` made."""
    columns: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(data)))
    return columns
