"""Reads a greeting out of YAML."""

import yaml

print(yaml.safe_load("greeting: Hello, world!")["greeting"])
