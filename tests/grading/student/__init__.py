"""Build the student edition, and the commands that students run in it."""
