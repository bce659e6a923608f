"""Where a command runs: files for other machines, rendered from templates."""
