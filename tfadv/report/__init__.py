"""Reports: rows in, JSON, table and pictures out."""
