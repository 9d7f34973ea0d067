"""Print what a little YAML says."""

import yaml

for name, size in yaml.safe_load("{gcc: 1.1 GB, scratch: 12 kB}").items():
    print(f"{name}: {size}")
