"""Apply deadlines, overrides and pseudonyms; exchange files with learning platforms."""
