"""Jobs: their table, their events, and what drives them from queued to an end."""
