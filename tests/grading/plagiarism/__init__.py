"""Find similar answers and copies of published answers."""
