"""What deletes old rows, and keeps the file and its WAL within their bounds."""
