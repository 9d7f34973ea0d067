"""What builds and runs variants: one protocol, one module per engine."""
