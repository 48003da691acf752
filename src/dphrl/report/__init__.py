"""From a comparison to what people read: an HTML page, figures, tables in the terminal."""
