"""What runs measured over time: kept, read, filled up from old commits, and searched for the commit of a change."""
