"""Grade submissions: a package whose subpackages are the rooms that a submission passes."""
