"""``python -m nox_variants``."""

from nox_variants.cli import main

raise SystemExit(main())
