"""What a finished run leaves for people and for other libraries."""
