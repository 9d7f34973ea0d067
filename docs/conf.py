"""Sphinx's settings for the documentation: `nox -s docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox_variants

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
os.environ["COLUMNS"] = "88"  # how wide argparse writes the help that is shown
os.environ["NO_COLOR"] = "1"

project = "nox-variants"
author = "the nox-variants authors"
version = release = nox_variants.__version__

extensions = ["myst_parser", "variants_reference"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 2
exclude_patterns = ["_build", "_ext"]

html_theme = "furo"
html_title = project
