"""Write pages and tables, and keep those of earlier runs."""
