"""Our own runs: from a specification to records, resumable bit for bit."""
