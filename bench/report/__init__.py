"""Findings of saved runs in, a page to look at out, and the same as Markdown, rows and figures; nothing is computed here."""
