"""Findings in, text for a terminal or Markdown out; nothing is computed here."""
