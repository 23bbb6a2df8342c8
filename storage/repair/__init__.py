"""What the catalog holds twice, made to agree again; see README.md."""
