"""Config files: reading them, changing them by options, and what their entries mean."""
