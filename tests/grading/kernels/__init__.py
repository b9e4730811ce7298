"""Right and wrong kernels for the grader's step checks and for measuring the grader."""
