"""Questions for a short talk with each student about their own submission."""
