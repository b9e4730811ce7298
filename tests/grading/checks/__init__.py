"""Compare what students' code returns with the reference."""
