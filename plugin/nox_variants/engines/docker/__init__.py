"""The docker engine: the docker SDK against Docker or Podman. Imports the SDK when it connects."""
