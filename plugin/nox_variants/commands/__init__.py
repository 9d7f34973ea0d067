"""The subcommands of `nox-variants`: one module each, thin over a function that tests call."""
