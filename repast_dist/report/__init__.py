"""Shows results: tables and progress in the terminal, and self-contained HTML pages."""
