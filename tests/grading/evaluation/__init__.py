"""Measure the grader: right and wrong answers, attacks, random input."""
