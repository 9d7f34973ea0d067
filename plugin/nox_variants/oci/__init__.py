"""Images as values: digest, layer, image, layout (OCI image-spec)."""
