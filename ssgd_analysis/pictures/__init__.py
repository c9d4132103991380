"""From a record to its picture files."""
