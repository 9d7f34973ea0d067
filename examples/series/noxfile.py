"""The collection of the articles: nox -s matrix."""

import nox_variants

nox_variants.register("variants.yaml")
