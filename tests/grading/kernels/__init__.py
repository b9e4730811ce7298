"""Right and wrong kernels for the grader's step checks and for the self-check."""
