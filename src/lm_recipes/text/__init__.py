"""What is done to a document? Markup out, Unicode normalised, bad ones filtered, duplicates removed, all accounted."""
