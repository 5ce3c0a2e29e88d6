"""Floor 2: what was asked for. The op table and the record of rows."""
