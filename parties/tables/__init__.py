"""A party's own tables: files recognised and opened, ids, labels and columns checked, and what looks wrong in them."""
