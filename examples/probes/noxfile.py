"""What small images lack beside libraries: certificates, names, time zones, users."""

import nox_variants

nox_variants.register("variants.yaml")
