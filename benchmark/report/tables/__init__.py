"""Tables: console, CSV, Markdown, LaTeX."""
