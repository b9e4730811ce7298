"""Write pages and tables, and keep the pages of earlier runs."""
