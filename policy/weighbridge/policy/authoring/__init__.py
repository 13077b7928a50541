"""Tools for policy authors: tests, explanations, comparisons.

They evaluate policies, and never decide about a window.
"""
