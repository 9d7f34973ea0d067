"""Where images come from: an image of the file becomes a root filesystem in the store."""
