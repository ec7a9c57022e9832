"""Rows in; one tidy frame, and from it tables, words and figures out."""
