"""The autograder for Gradescope."""
