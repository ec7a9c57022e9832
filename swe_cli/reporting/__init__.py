"""Rows in; tables, words and figures out."""
