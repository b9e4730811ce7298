"""Call students' functions on generated inputs, inside the sandbox."""
