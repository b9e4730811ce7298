"""Grade submissions: each subpackage is one stage of the process."""
