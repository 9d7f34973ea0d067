"""``python -m nox_variants.schemas FOLDER`` writes every schema."""

import sys
from pathlib import Path

from nox_variants.schemas import documents

for name, text in documents().items():
    (Path(sys.argv[1]) / name).write_text(text, encoding="utf-8")
