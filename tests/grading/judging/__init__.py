"""Compare the results of students' code with the reference."""
