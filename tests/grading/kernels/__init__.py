"""Right and wrong kernels: what the grader and the self-check are tried on."""
