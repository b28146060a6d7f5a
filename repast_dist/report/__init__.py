"""How the answer looks: terminal tables, progress, and self-contained HTML pages."""
