"""Unit tests of the grader."""
